import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.errors import StudyError
from hpo.study.lease import DEAD_AFTER_SECONDS, Driver, leased
from hpo.study.study import SearchStudy


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, name=f"study-{uuid.uuid4().hex[:8]}")[0]


@pytest.fixture
def study(storage_url: str, config: SearchConfig) -> SearchStudy:
    return create_study(storage_url, config)


def test_a_study_is_kept_and_given_back(study: SearchStudy) -> None:
    with leased(study):
        assert study.metadata.driver is not None
        assert (study.metadata.driver["pid"], study.metadata.driver["hostname"]) == (
            os.getpid(),
            socket.gethostname(),
        )
        with leased(study):  # by the same process
            pass
    assert study.metadata.driver is None


def test_a_second_driver_is_refused_until_the_first_is_dead(study: SearchStudy) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        start = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        study.metadata.driver = asdict(
            replace(Driver.this(), pid=other.pid, started=int(start), beat=0.0)
        )
        message = (
            rf"another search works on this study: process {other.pid} on {socket.gethostname()}"
        )
        with pytest.raises(StudyError, match=message), leased(study):
            pass
        assert study.metadata.driver["pid"] == other.pid
        other.send_signal(signal.SIGKILL)
        while Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with leased(study):
            assert study.metadata.driver["pid"] == os.getpid()
    finally:
        other.kill()
        other.wait()


def test_a_number_that_is_used_again_is_another_process(study: SearchStudy) -> None:
    study.metadata.driver = asdict(replace(Driver.this(), pid=os.getppid(), started=1))
    with leased(study):
        pass


@pytest.mark.parametrize("age", [0.0, DEAD_AFTER_SECONDS + 1])
def test_a_driver_on_another_machine_lives_while_it_is_heard_of(
    study: SearchStudy, age: float
) -> None:
    beat = time.time() - age
    study.metadata.driver = asdict(replace(Driver.this(), hostname="elsewhere", beat=beat))
    if age:
        with leased(study):
            return
    with pytest.raises(StudyError, match=r"process \d+ on elsewhere"), leased(study):
        pass
