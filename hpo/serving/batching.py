"""Collects waiting images into batches. While a batch is computed, the next one grows."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpo.serving.runner import Answer, Question, Refusal
from hpo.serving.settings import Batching

BATCHES_OF_A_REPLICA: Final = 2  # one is computed, one is decoded or on its way
MOST_BATCH_BYTES: Final = 32 * 2**20

Result = Answer | Refusal
Send = Callable[[list[Question]], Awaitable[Sequence[Result]]]


class ReplicaError(RuntimeError):
    """A replica has died, or failed, with a batch."""


@dataclass(eq=False)
class _Waiting:
    question: Question
    future: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """The queue of a model.

    A batch goes to a replica as one call, because a call costs more than a small image
    (docs/performance.md). Who waits no longer (a cancelled `classify`) is left out.

    Args:
        batching: Size and wait.
        send: Gives the answers to a batch, in its order.
        seconds: The time after which a replica is no longer waited for.
        on_batch: Is told the size of each batch.
        expects_more: Whether further images are on their way; a batch that is not full waits only
            for these.

    Attributes:
        num_replicas: Replicas that run; each has up to two batches at a time. Of none, Ray Serve
            keeps the batches until one runs.
    """

    def __init__(
        self,
        batching: Batching,
        send: Send,
        seconds: float,
        on_batch: Callable[[int], None],
        expects_more: Callable[[], bool] = lambda: True,
    ) -> None:
        self.num_replicas = 1
        self._batching, self._send, self._seconds = batching, send, seconds
        self._on_batch, self._expects_more = on_batch, expects_more
        self._waiting = deque[_Waiting]()
        self._tasks = set[asyncio.Task[None]]()
        self._is_collecting = False
        self._is_full = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """Images that are in no batch yet."""
        return len(self._waiting)

    async def classify(self, question: Question) -> Result:
        """The answer to this question.

        Raises:
            ReplicaError: The replica that computed it failed.
            TimeoutError: It took too long.
        """
        one = _Waiting(question)
        self._waiting.append(one)
        if len(self._waiting) >= self._batching.max_size:
            self._is_full.set()
        self._begin_batch()
        return await one.future

    def _begin_batch(self) -> None:
        """Starts to collect a batch, if images wait, a replica has room, and none is collected."""
        has_room = len(self._tasks) < BATCHES_OF_A_REPLICA * max(1, self.num_replicas)
        if self._waiting and has_room and not self._is_collecting:
            self._is_collecting = True
            task = asyncio.get_running_loop().create_task(self._run_batch())
            self._tasks.add(task)
            task.add_done_callback(self._end_batch)

    def _end_batch(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._begin_batch()

    async def _run_batch(self) -> None:
        await self._wait_for_others()
        batch = self._take()
        self._is_collecting = False
        self._begin_batch()
        if not batch:
            return
        self._on_batch(len(batch))
        try:
            async with asyncio.timeout(self._seconds):
                results = await self._send([one.question for one in batch])
            for one, result in zip(batch, results, strict=True):
                if not one.future.done():
                    one.future.set_result(result)
        except TimeoutError:
            _fail(batch, TimeoutError, "")
        except Exception as error:  # noqa: BLE001  Ray raises whatever broke in its processes
            _fail(batch, ReplicaError, _first_line(error))

    async def _wait_for_others(self) -> None:
        self._is_full.clear()
        is_full = len(self._waiting) >= self._batching.max_size
        if self._batching.wait_seconds and not is_full and self._expects_more():
            try:
                async with asyncio.timeout(self._batching.wait_seconds):
                    await self._is_full.wait()
            except TimeoutError:
                pass

    def _take(self) -> list[_Waiting]:
        batch, num_bytes = list[_Waiting](), 0
        while self._waiting and len(batch) < self._batching.max_size:
            num_bytes += len(self._waiting[0].question.content)
            if batch and num_bytes > MOST_BATCH_BYTES:
                break
            one = self._waiting.popleft()
            if not one.future.done():
                batch.append(one)
        return batch


def _fail(batch: list[_Waiting], kind: type[Exception], text: str) -> None:
    for one in batch:
        if not one.future.done():
            one.future.set_exception(kind(text))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
