import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from hpo.serving import batching
from hpo.serving.batching import Batcher, ReplicaError, Result
from hpo.serving.runner import Answer, Question
from hpo.serving.settings import Batching


class Computer:
    """Answers with the question's own content; each batch waits until it is let go."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches = list[list[bytes]]()
        self.go = asyncio.Event()
        if is_open:
            self.go.set()

    async def __call__(self, questions: list[Question]) -> Sequence[Result]:
        self.batches.append([one.content for one in questions])
        await self.go.wait()
        return [Answer(((one.content.decode(), 1.0),), ()) for one in questions]


def question(number: int) -> Question:
    return Question(b"%d" % number, 1)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def ask_all(batcher: Batcher, count: int) -> list[asyncio.Task[Result]]:
    return [asyncio.create_task(batcher.classify(question(i))) for i in range(count)]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_images_that_come_while_replicas_are_busy_become_the_next_batch() -> None:
    async def test() -> None:
        computer, sizes = Computer(), list[int]()
        batcher = Batcher(Batching(4, 0.0), computer, 30, sizes.append)
        first = []
        for _ in range(2):  # as many as a replica takes at a time
            first += ask_all(batcher, 1)
            await settle()
        later = ask_all(batcher, 10)
        await settle()
        assert (sizes, batcher.num_waiting) == ([1, 1], 10)
        computer.go.set()
        answers = await asyncio.gather(*first, *later)
        assert sorted(sizes) == [1, 1, 2, 4, 4]
        assert [one.classes[0][0] for one in answers] == ["0", "0", *map(str, range(10))]

    run(test)


def test_more_replicas_take_more_batches() -> None:
    async def test() -> None:
        computer = Computer()
        batcher = Batcher(Batching(1, 0.0), computer, 30, lambda _: None)
        batcher.num_replicas = 3
        tasks = ask_all(batcher, 10)
        await settle()
        assert len(computer.batches) == 6
        computer.go.set()
        await asyncio.gather(*tasks)

    run(test)


def test_a_batch_does_not_wait_where_no_image_is_on_its_way() -> None:
    async def test() -> None:
        computer = Computer(is_open=True)
        batcher = Batcher(Batching(3, 30.0), computer, 60, lambda _: None, lambda: False)
        await asyncio.gather(*ask_all(batcher, 2))
        assert computer.batches == [[b"0", b"1"]]

    run(test)


def test_a_batch_waits_for_others_but_goes_when_it_is_full() -> None:
    async def test() -> None:
        computer = Computer(is_open=True)
        batcher = Batcher(Batching(3, 30.0), computer, 60, lambda _: None)
        tasks = ask_all(batcher, 2)
        await asyncio.sleep(0.05)
        assert computer.batches == []
        tasks += ask_all(batcher, 1)
        await asyncio.gather(*tasks)  # long before 30 seconds
        assert [len(batch) for batch in computer.batches] == [3]

    run(test)


def test_who_waits_no_longer_is_left_out() -> None:
    async def test() -> None:
        computer = Computer()
        batcher = Batcher(Batching(8, 0.0), computer, 30, lambda _: None)
        busy = []
        for _ in range(2):
            busy += ask_all(batcher, 1)
            await settle()
        waiting = ask_all(batcher, 4)
        await settle()
        waiting[1].cancel()
        busy[0].cancel()
        await settle()
        computer.go.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers.pop(1), asyncio.CancelledError)
        assert computer.batches[-1] == [b"0", b"2", b"3"]
        assert [one.classes[0][0] for one in answers] == ["0", "2", "3"]

    run(test)


def test_a_replica_that_fails_fails_its_batch_only() -> None:
    async def test() -> None:
        async def send(questions: list[Question]) -> Sequence[Result]:
            if questions[0].content == b"0":
                raise ValueError("the process died\nat last")
            return [Answer((), ()) for _ in questions]

        batcher = Batcher(Batching(1, 0.0), send, 30, lambda _: None)
        answers = await asyncio.gather(*ask_all(batcher, 3), return_exceptions=True)
        assert repr(answers[0]) == repr(ReplicaError("the process died"))
        assert answers[1:] == [Answer((), ())] * 2

    run(test)


def test_a_replica_that_hangs_does_not_hold_others_up_for_ever() -> None:
    async def test() -> None:
        computer = Computer()
        batcher = Batcher(Batching(1, 0.0), computer, 0.05, lambda _: None)
        answers = await asyncio.gather(*ask_all(batcher, 5), return_exceptions=True)
        assert [type(one) for one in answers] == [TimeoutError] * 5
        computer.go.set()
        assert (await batcher.classify(question(7))).classes[0][0] == "7"

    run(test)


def test_a_batch_has_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        computer = Computer(is_open=True)
        batcher = Batcher(Batching(8, 0.01), computer, 30, lambda _: None)
        questions = [Question(bytes(size), 1) for size in (30, 60, 50, 200, 10)]
        tasks = [asyncio.create_task(batcher.classify(one)) for one in questions]
        await asyncio.gather(*tasks)
        found = [[len(content) for content in batch] for batch in computer.batches]
        assert found == [[30, 60], [50], [200], [10]]

    monkeypatch.setattr(batching, "MOST_BATCH_BYTES", 100)
    run(test)
