"""Tests of running trials on a real Ray, with workers that report epochs without training."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from nothing_worker import NUM_EPOCHS, trains_nothing
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.errors import RunInterrupted
from hpo.execution.cluster import TrialResources
from hpo.execution.interruption import interruptible
from hpo.execution.tuning import run_trials
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus
from sgformer.data.image_cache import ImagesId

NUM_TRIALS = 4


class SignalsAtTheEnd(SearchObserver):
    """Sends SIGINT to this process when the last trial ends."""

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        if number == NUM_TRIALS - 1:
            os.kill(os.getpid(), signal.SIGINT)


class Silent(SearchObserver):
    """Ignores all events."""


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    settings = (
        f"study.num_trials={NUM_TRIALS}",
        f"train.max_epochs={NUM_EPOCHS}",
        "scheduler={name: none}",
    )
    return load_search_config(search_file, settings)[0]


@pytest.fixture
def study(config: SearchConfig, tmp_path: Path) -> SearchStudy:
    return create_study(f"sqlite:///{tmp_path / 'study.db'}", config)


def run_all(config: SearchConfig, study: SearchStudy, folder: Path, watch: SearchObserver) -> None:
    run = RunFolder(folder / "run")
    run.make()
    images = ImagesId("", "")
    run_trials(config, run, study, images, TrialResources(1, 0.0, 1), watch, trains_nothing())


@pytest.mark.usefixtures("started_ray")
def test_a_signal_as_the_last_trial_ends_interrupts_the_search(
    config: SearchConfig, study: SearchStudy, tmp_path: Path
) -> None:
    with pytest.raises(RunInterrupted, match="continue with --resume"), interruptible("other"):
        run_all(config, study, tmp_path, SignalsAtTheEnd())
    states = [trial.state for trial in study.trials()]
    assert states == [TrialStatus.COMPLETE] * NUM_TRIALS  # the signal lost nothing
    run_all(config, study, tmp_path, Silent())
    assert len(study.trials()) == NUM_TRIALS


@pytest.mark.usefixtures("started_ray")
def test_a_worker_is_told_the_epochs_that_the_study_has_of_a_trial(
    config: SearchConfig, study: SearchStudy, tmp_path: Path
) -> None:
    number = study.ask().number
    study.report(number, {1: 0.1, 2: 0.2})
    run_all(config, study, tmp_path, Silent())
    known = [trial.attributes["known_epochs"] for trial in study.trials()]
    assert known == [2, 0, 0, 0]
    assert study.trials()[0].curve == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})
