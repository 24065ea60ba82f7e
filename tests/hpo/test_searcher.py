"""The two Ray adapters, driven as Ray drives them."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from studies import create_study

from hpo.checkpoints import TrialCheckpoints
from hpo.config import SearchConfig, load_search_config
from hpo.decisions import Decisions
from hpo.progress import SearchObserver
from hpo.scheduler import StudyScheduler
from hpo.searcher import StudySearcher
from hpo.study import SearchStudy
from hpo.trial import REPORT
from hpo.trial_report import TrialReport


class Silent(SearchObserver):
    """Hears everything and says nothing."""


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=3"])[0]


@pytest.fixture
def study(config: SearchConfig, tmp_path: Path) -> SearchStudy:
    return create_study(f"sqlite:///{tmp_path / 'study.db'}", config)


@pytest.fixture
def decisions(config: SearchConfig, study: SearchStudy, tmp_path: Path) -> Decisions:
    return Decisions(config, study, 2, Silent(), TrialCheckpoints(tmp_path, 3, maximise=True))


@pytest.fixture
def searcher(decisions: Decisions) -> StudySearcher:
    return StudySearcher(decisions, lambda number, params: {"number": number, **params})


@pytest.fixture
def scheduler(decisions: Decisions, searcher: StudySearcher) -> StudyScheduler:
    return StudyScheduler(decisions, searcher)


def result(number: int, epoch: int, value: float, end: str | None = None) -> dict[str, Any]:
    row = {"epoch": epoch, "val_top1": value}
    return {REPORT: TrialReport(number, (row,), end), "done": end is not None}


def ray_trial(tmp_path: Path, number: int, error: str | None = None) -> Any:
    path = tmp_path / "error.txt"
    if error is not None:
        path.write_text(error)
    return SimpleNamespace(config={"number": number}, error_file=str(path))


def test_trials_are_suggested_while_there_are_slots_and_trials(searcher: StudySearcher) -> None:
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["number"], second["number"]) == (0, 1)
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", result(0, 1, 0.5, "completed"))
    third = searcher.suggest("c")
    assert isinstance(third, dict)
    assert third["number"] == 2
    assert searcher.suggest("d") == Searcher.FINISHED


def test_the_scheduler_stops_what_the_decisions_stop(
    searcher: StudySearcher, scheduler: StudyScheduler, study: SearchStudy, tmp_path: Path
) -> None:
    searcher.suggest("a")
    searcher.suggest("b")
    trial = ray_trial(tmp_path, 0)
    assert scheduler.on_trial_result(None, trial, result(0, 1, 0.9)) == TrialScheduler.CONTINUE
    stop = scheduler.on_trial_result(None, ray_trial(tmp_path, 1), result(1, 1, 0.1))
    assert stop == TrialScheduler.STOP
    searcher.on_trial_complete("b", result(1, 1, 0.1))
    assert study.trials()[1].state == "PRUNED"
    assert study.trials()[0].curve == {1: 0.9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Failure # 1 (occurred at x)\nold\nFailure # 2 (occurred at y)\nThe actor died.\nmore",
            "The actor died.",
        ),
        (
            "Failure # 1 (occurred at x)\nray::T.__init__() (pid=3)\n  File\nImportError: no hpo",
            "ImportError: no hpo",
        ),
        (None, "the trial's process ended without a word"),
    ],
)
def test_a_lost_worker_is_told_with_what_ray_knows(
    searcher: StudySearcher, scheduler: StudyScheduler, study: SearchStudy, tmp_path: Path,
    text: str | None, message: str,
) -> None:  # fmt: skip
    searcher.suggest("a")
    scheduler.on_trial_error(None, ray_trial(tmp_path, 0, text))
    searcher.on_trial_complete("a", error=True)
    (trial,) = study.trials()
    assert trial.state == "FAIL"
    assert trial.attributes["error"]["type"] == "WorkerLost"
    assert trial.attributes["error"]["message"] == message


def test_an_exception_in_a_hook_ends_the_search_and_is_kept(
    searcher: StudySearcher, scheduler: StudyScheduler, tmp_path: Path
) -> None:
    searcher.suggest("a")
    unknown = result(99, 1, 0.5)
    assert scheduler.on_trial_result(None, ray_trial(tmp_path, 99), unknown) == "CONTINUE"
    assert isinstance(searcher.failure, KeyError)
    assert searcher.suggest("b") == Searcher.FINISHED


def test_rays_pickles_hold_neither_study_nor_observer(decisions: Decisions) -> None:
    assert vars(pickle.loads(pickle.dumps(decisions))) == {}
