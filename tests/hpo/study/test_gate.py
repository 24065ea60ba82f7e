from collections.abc import Callable

import pytest
import sqlalchemy

from hpo.errors import StudyError
from hpo.study.gate import StudyGate
from sgformer.errors import DiskFullError


def error(text: str) -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("INSERT", None, Exception(text))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.study.gate.SECONDS_BETWEEN_TRIES", 0.0)


def failing(errors: list[Exception]) -> Callable[[bool], bool]:
    def action(is_retry: bool) -> bool:
        if errors:
            raise errors.pop(0)
        return is_retry

    return action


class Hold:
    """A hold on a study that is lost after some checks."""

    def __init__(self, num_held: int) -> None:
        self.num_held = num_held
        self.asked: list[bool] = []

    def check(self, *, surely: bool) -> None:
        self.asked.append(surely)
        if len(self.asked) > self.num_held:
            raise StudyError("lost")


def test_a_write_waits_for_its_database_and_says_so_once() -> None:
    gate, told = StudyGate(), []
    gate.on_outage = told.append
    assert gate.write(failing([error("gone"), error("gone")]))
    assert told == [
        "the study's database does not answer, waiting: gone",
        "the study's database answers again",
    ]
    assert not gate.write(failing([]))
    assert len(told) == 2


def test_a_full_disk_is_told_at_once() -> None:
    with pytest.raises(DiskFullError, match="database or disk is full"):
        StudyGate().write(failing([error("database or disk is full")]))


def test_what_is_no_outage_is_raised() -> None:
    wrong = sqlalchemy.exc.IntegrityError("INSERT", None, Exception("twice"))
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        StudyGate().write(failing([wrong]))


def test_each_try_asks_whether_the_study_is_held_and_looks_after_an_outage() -> None:
    gate, hold = StudyGate(), Hold(num_held=2)
    gate.hold = hold
    assert not gate.write(failing([]))
    with pytest.raises(StudyError, match="lost"):
        gate.write(failing([error("gone")]))
    assert hold.asked == [False, False, True]


def test_only_a_driver_waits_to_read() -> None:
    gate, errors = StudyGate(), [error("gone"), error("gone")]

    def read() -> bool:
        return failing(errors)(False)

    with pytest.raises(sqlalchemy.exc.OperationalError):
        gate.read(read)
    gate.hold = Hold(num_held=0)
    assert gate.read(read) is False
    assert errors == []
