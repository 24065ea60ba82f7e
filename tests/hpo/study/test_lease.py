"""Tests that only one driver at a time holds a study in SQLite, a journal file or PostgreSQL."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.errors import StudyError
from hpo.study.driver import Driver
from hpo.study.lease import LeaseTimes, leased
from hpo.study.study import SearchStudy
from hpo.study.trial import CARRIED_OVER_FROM

QUICK = LeaseTimes(between_beats=0.05, dead_after=1.0, least_watch=0.5, unconfirmed=60.0)
SILENT = replace(QUICK, between_beats=3600.0)


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, name=f"study-{uuid.uuid4().hex[:8]}")[0]


@pytest.fixture
def study(storage_url: str, config: SearchConfig) -> SearchStudy:
    return create_study(storage_url, config)


def is_driven_by(study: SearchStudy, driver: Driver | None) -> None:
    """Writes the driver into the study, as another process would."""
    values = None if driver is None else driver.values()
    study.optuna_study.set_user_attr("driver", values)


def elsewhere(**values: Any) -> Driver:
    return replace(Driver.this(), hostname="elsewhere", boot="another", **values)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_study_is_kept_and_given_back(study: SearchStudy) -> None:
    with leased(study):
        driver = study.metadata.driver
        assert driver is not None
        assert (driver["pid"], driver["hostname"]) == (os.getpid(), socket.gethostname())
        with leased(study):  # a step of the search may take the lease again
            pass
        assert study.metadata.driver == driver
    assert study.metadata.driver is None


def test_a_driver_says_again_and_again_that_it_lives(study: SearchStudy) -> None:
    with leased(study, times=QUICK):
        first = study.metadata.driver
        assert first is not None
        eventually(lambda: (study.metadata.driver or first)["beat"] > first["beat"])
        study.metadata.delivered_trial = 0


def test_a_second_driver_is_refused_until_the_first_is_dead(study: SearchStudy) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        start = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        is_driven_by(study, replace(Driver.this(), pid=other.pid, started=int(start), beat=0.0))
        message = (
            rf"another search works on this study: process {other.pid} on {socket.gethostname()}"
        )
        with pytest.raises(StudyError, match=message), leased(study):
            pass
        assert (study.metadata.driver or {})["pid"] == other.pid
        other.send_signal(signal.SIGKILL)
        while Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with leased(study):
            assert (study.metadata.driver or {})["pid"] == os.getpid()
    finally:
        other.kill()
        other.wait()


def test_a_number_that_is_used_again_is_another_process(study: SearchStudy) -> None:
    is_driven_by(study, replace(Driver.this(), pid=os.getppid(), started=1))
    with leased(study):
        assert (study.metadata.driver or {})["pid"] == os.getpid()


@contextmanager
def beating(study: SearchStudy, driver: Driver, *, by: float) -> Iterator[None]:
    """A driver that this machine cannot look up; its clock is `by` seconds ahead."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.is_set():
            is_driven_by(study, replace(driver, beat=time.time() + by))
            time.sleep(0.05)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        eventually(lambda: study.metadata.driver is not None)
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("by", [-7200.0, 0.0, 7200.0])
def test_a_driver_elsewhere_lives_while_its_beat_moves_whatever_its_clock_says(
    study: SearchStudy, by: float
) -> None:
    slow = replace(QUICK, dead_after=30.0, least_watch=30.0)
    with (
        beating(study, elsewhere(), by=by),
        pytest.raises(StudyError, match=r"process \d+ on elsewhere"),
        leased(study, times=slow),
    ):
        pass
    assert (study.metadata.driver or {})["hostname"] == "elsewhere"


@pytest.mark.parametrize("unlike", [{"boot": "another"}, {"pids": "pid:[1]"}, {"pids": ""}])
def test_an_equal_host_name_alone_does_not_say_that_a_driver_is_dead(
    study: SearchStudy, unlike: dict[str, str]
) -> None:
    other = replace(Driver.this(), pid=2**22 + 1, **unlike)  # no process has this id
    slow = replace(QUICK, dead_after=30.0, least_watch=30.0)
    with (
        beating(study, other, by=0.0),
        pytest.raises(StudyError, match="another search works on this study"),
        leased(study, times=slow),
    ):
        pass


@pytest.mark.parametrize("age", [0.0, 3600.0, 1e6])
def test_a_driver_elsewhere_that_says_nothing_any_more_is_dead(
    study: SearchStudy, age: float
) -> None:
    is_driven_by(study, elsewhere(beat=time.time() - age))
    told: list[str] = []
    with leased(study, told.append, QUICK):
        assert (study.metadata.driver or {})["pid"] == os.getpid()
    assert len(told) == (0 if age > QUICK.surely_dead else 1)


def test_a_driver_of_an_older_version_is_watched(study: SearchStudy) -> None:
    old = {"hostname": socket.gethostname(), "pid": 1, "started": 1, "beat": time.time()}
    study.optuna_study.set_user_attr("driver", old)
    told: list[str] = []
    with leased(study, told.append, QUICK):
        pass
    assert "process 1 on" in told[0]


def hold(url: str, config: SearchConfig, start: Any, is_over: Any, results: Any) -> None:
    study = SearchStudy.open(url, config.study, config.space)
    start.wait()
    try:
        with leased(study):
            results.put(study.ask().number)
            is_over.wait()
    except StudyError as error:
        results.put(str(error))


def test_of_drivers_that_come_at_once_one_has_the_study(
    storage_url: str, config: SearchConfig
) -> None:
    create_study(storage_url, config)
    forking = multiprocessing.get_context("fork")
    start, is_over, results = forking.Barrier(4), forking.Event(), forking.Queue()
    arguments = (storage_url, config, start, is_over, results)
    drivers = [forking.Process(target=hold, args=arguments) for _ in range(4)]
    for driver in drivers:
        driver.start()
    told = [results.get(timeout=120) for _ in drivers]
    is_over.set()
    for driver in drivers:
        driver.join(60)
    assert [one for one in told if isinstance(one, int)] == [0]
    refusals = [one for one in told if isinstance(one, str)]
    assert len(refusals) == 3
    assert all("another search works on this study" in text for text in refusals)


def refuses(write: Callable[[], Any]) -> bool:
    try:
        write()
    except StudyError as error:
        assert "another search has taken up study" in str(error)  # noqa: PT017
        return True
    return False


def test_every_write_refuses_once_another_driver_has_the_study(
    study: SearchStudy, config: SearchConfig
) -> None:
    study.ask()
    other = elsewhere()
    with leased(study, times=QUICK):
        study.metadata.delivered_trial = 0
        is_driven_by(study, other)
        eventually(lambda: refuses(lambda: setattr(study.metadata, "limits_reached", {})))
        copy = study.trials()[0]
        for write in (
            lambda: study.metadata.add_fresh_training("a", {}),
            lambda: study.metadata.add_retraining(0, 1, 1.0, 1.0),
            lambda: study.add(copy, copy.params, {CARRIED_OVER_FROM: {}}),
            lambda: study.enqueue_first_trials({}),
            study.ask,
            study.interrupted,
            lambda: study.report(0, {1: 0.5}),
            lambda: study.pause(0, {}),
            lambda: study.finish(0, "FAIL", {}),
        ):
            assert refuses(write)
        assert study.trials() == (copy,)
    assert study.metadata.driver == other.values()


def test_a_driver_that_was_halted_looks_before_it_writes(study: SearchStudy) -> None:
    other = elsewhere()
    with leased(study, times=replace(SILENT, unconfirmed=0.0)):
        study.metadata.delivered_trial = 0
        is_driven_by(study, other)
        with pytest.raises(StudyError, match="another search has taken up study"):
            study.metadata.delivered_trial = 1
    assert study.metadata.driver == other.values()
    assert study.metadata.delivered_trial == 0


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("a bug")])
def test_a_beat_that_fails_is_heard_of(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    told: list[str] = []
    with leased(study, told.append, QUICK):
        study.metadata.delivered_trial = 0

        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr("hpo.study.driver.OtherRecord.update", fail)
        monkeypatch.setattr("hpo.study.driver.TableRecord.update", fail)
        if isinstance(error, OSError):  # it may be temporary
            eventually(lambda: bool(told))
            study.metadata.delivered_trial = 1
            assert "disk full" in told[0]
        else:
            with pytest.raises(RuntimeError, match="a bug"):
                eventually(lambda: setattr(study.metadata, "delivered_trial", 1))  # type: ignore[func-returns-value]
        monkeypatch.undo()


HOLD = """
import sys, time
from pathlib import Path
from hpo.config.loading import load_search_config
from hpo.errors import StudyError
from hpo.study.lease import LeaseTimes, leased
from hpo.study.study import SearchStudy

url, file, name, seconds = sys.argv[1:]
config = load_search_config(Path(file), name=name)[0]
study = SearchStudy.open(url, config.study, config.space)
times = LeaseTimes(between_beats=0.2, dead_after=20, least_watch=20)
try:
    with leased(study, times=times):
        print("drives", flush=True)
        time.sleep(float(seconds))
except StudyError as error:
    print(error, flush=True)
"""
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="may not make a namespace of process ids here")
def test_of_two_containers_with_one_host_name_one_drives(
    tmp_path: Path, search_file: Path
) -> None:
    url = f"journal:{tmp_path / 'journal'}"
    config = load_search_config(search_file, name="shared")[0]
    create_study(url, config)

    def start(seconds: float) -> subprocess.Popen[str]:
        command = (*CONTAINER, sys.executable, "-c", HOLD, url, str(search_file), "shared")
        return subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True)

    first, second = start(120), None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "drives\n"
        second = start(0)
        assert "another search works on this study" in second.communicate(timeout=60)[0]
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
