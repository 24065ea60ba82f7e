import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from hpo.errors import RunInterrupted
from hpo.execution.interruption import (
    SIGNALS,
    interruptible,
    keeping_the_handler,
    noting_interruption,
)


@pytest.fixture(autouse=True)
def _same_handlers_after() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def interrupted(action: Callable[[], object]) -> BaseException | None:
    """Runs an action that a signal ends; returns the cause of the RunInterrupted."""
    with pytest.raises(RunInterrupted, match="how to go on") as caught:
        run(action)
    return caught.value.__cause__


def run(action: Callable[[], object]) -> None:
    with interruptible("how to go on"):
        action()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_repeated_signal_does_not_kill_a_program_before_its_last_message(
    number: signal.Signals,
) -> None:
    script = (
        "import os, sys\n"
        "from hpo.errors import RunInterrupted\n"
        "from hpo.execution.interruption import hear_signals_to_the_end, interruptible\n"
        "hear_signals_to_the_end()\n"
        "try:\n"
        "    with interruptible('how to go on'): os.kill(os.getpid(), int(sys.argv[1]))\n"
        "except RunInterrupted as error:\n"
        "    os.kill(os.getpid(), int(sys.argv[1]))\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "how to go on\n"), done.stderr


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_block_and_says_how_to_go_on(number: signal.Signals) -> None:
    def act() -> None:
        send(number)
        pytest.fail("it went on")

    assert interrupted(act) is None


def test_a_second_signal_does_not_disturb_the_end() -> None:
    ended = []

    def act() -> None:
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT, signal.SIGTERM)
            ended.append("in order")

    interrupted(act)
    assert ended == ["in order"]


def test_what_breaks_because_of_a_signal_is_told_as_an_interruption() -> None:
    def act() -> None:
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            raise OSError("a connection is gone") from None

    assert isinstance(interrupted(act), OSError)


def test_other_errors_are_as_they_were() -> None:
    with pytest.raises(OSError, match="a disk"), interruptible("how to go on"):
        raise OSError("a disk")


def test_who_asks_hears_of_a_signal_that_raises_nothing() -> None:
    with interruptible("how to go on"), noting_interruption() as is_requested:
        assert not is_requested()
        send(signal.SIGHUP, signal.SIGINT)  # both signals come at the same moment
        assert is_requested()


def test_asking_is_possible_without_anything_around_it() -> None:
    with noting_interruption() as is_requested:
        send(signal.SIGTERM)
        assert is_requested()


def test_a_later_second_signal_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.execution.interruption.SECONDS_OF_ONE", 0.0)

    def act() -> None:
        with noting_interruption():
            send(signal.SIGINT)
            send(signal.SIGINT)
            pytest.fail("it went on")

    interrupted(act)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        run(lambda: send(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_a_shell_has_put_into_the_background_is_interrupted_too() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupted(lambda: send(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_outlives_a_library_that_sets_its_own() -> None:
    def act() -> None:
        with keeping_the_handler():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        send(signal.SIGTERM)

    interrupted(act)


def test_a_library_that_exits_on_a_signal_is_an_interruption() -> None:
    interrupted(lambda: sys.exit(15))


def test_other_threads_may_search_too() -> None:
    told = []

    def work() -> None:
        with interruptible("how to go on"), noting_interruption() as is_requested:
            told.append(is_requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False]
