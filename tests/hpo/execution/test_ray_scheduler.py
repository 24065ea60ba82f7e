"""Tests of the Ray adapter, whose methods the tests call as Ray does."""

import itertools
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import ResourcesConfig, SearchConfig
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError
from hpo.execution.cluster import Node, TrialResources
from hpo.execution.ray_scheduler import MOST_FAILED_STARTS, StudyScheduler
from hpo.execution.shared_gpus import SharedGpus
from hpo.execution.slots import Slots
from hpo.execution.worker import GPU, REPORT, WORN_OUT
from hpo.execution.worker_supply import WorkerSupply
from hpo.study.study import SearchStudy
from hpo.study.trial import EndReason, TrialReport

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Silent(SearchObserver):
    """A SearchObserver that ignores all events."""


class Remote:
    """Stands in for an actor's method, and records its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def remote(self, *args: Any) -> None:
        self.calls.append(args[0] if args else None)


def slot(name: str, error_file: Path | None = None) -> Any:
    """A stand-in for one of Ray's trials, with its actor."""
    actor = SimpleNamespace(assign=Remote(), retire=Remote(), leave=Remote())
    state = SimpleNamespace(ray_actor=actor)
    return SimpleNamespace(
        trial_id=name,
        temporary_state=state,
        error_file=str(error_file) if error_file else None,
        status=Trial.RUNNING,
    )


def supply(
    asked_for: list[int] | None = None, most: int | None = None, gpus: SharedGpus | None = None
) -> WorkerSupply:
    """Workers on two CPUs, or as many of them as was asked for at last.

    Where they share GPUs, there are two, and a trial may take all of one.
    """
    resources, node = TrialResources(1, 0.0, 2), Node(2, 0)
    if gpus is not None:
        sizes = (({}, TrialResources(1, 1.0, 2)),)
        resources, node = TrialResources(1, 0.5, 4, by_architecture=sizes), Node(4, 2)
    slots = Slots(
        ResourcesConfig(max_concurrent_trials=most),
        resources,
        lambda: ([node], []),
        lambda: asked_for[-1] if asked_for else None,
        may_grow=False,
        clock=itertools.count(step=100).__next__,
    )
    return WorkerSupply(slots, lambda: 99, gpus)


def assigned(trial: Any) -> list[int]:
    """Numbers of the trials that were assigned to a worker."""
    return [task.number for task in trial.temporary_state.ray_actor.assign.calls if task]


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=3"])[0]


@pytest.fixture
def study(config: SearchConfig, tmp_path: Path) -> SearchStudy:
    return create_study(f"sqlite:///{tmp_path / 'study.db'}", config)


@pytest.fixture
def decisions(config: SearchConfig, study: SearchStudy, tmp_path: Path) -> Engine:
    return Engine(config, study, 2, Silent(), TrialCheckpoints(tmp_path, 3, maximise=True))


@pytest.fixture
def scheduler(decisions: Engine) -> StudyScheduler:
    return StudyScheduler(decisions, lambda proposal: proposal, supply())  # type: ignore[arg-type]


IDLE = {REPORT: None, WORN_OUT: False}


def result(
    number: int, epoch: int, value: float, end: str | None = None, *, worn_out: bool = False
) -> dict[str, Any]:
    row = {"epoch": epoch, "val_top1": value}
    return {REPORT: TrialReport(number, (row,), end), WORN_OUT: worn_out}


def test_workers_are_given_trials_until_there_are_no_more(
    scheduler: StudyScheduler, study: SearchStudy
) -> None:
    first, second = slot("a"), slot("b")
    for worker in (first, second):
        assert scheduler.on_trial_result(None, worker, IDLE) == CONTINUE
    assert (assigned(first), assigned(second)) == ([0], [1])
    assert scheduler.on_trial_result(None, second, result(1, 1, 0.9)) == CONTINUE
    assert scheduler.on_trial_result(None, second, result(1, 2, 0.9, "completed")) == CONTINUE
    assert assigned(second) == [1, 2]
    assert scheduler.on_trial_result(None, first, result(0, 1, 0.5, "completed")) == STOP
    assert scheduler.on_trial_result(None, second, result(2, 1, 0.95, "completed")) == STOP
    assert [trial.state for trial in study.trials()] == ["COMPLETE"] * 3
    assert scheduler.failure is None


def test_a_trial_that_is_stopped_makes_way_at_once(
    scheduler: StudyScheduler, study: SearchStudy
) -> None:
    first, second = slot("a"), slot("b")
    for worker in (first, second):
        scheduler.on_trial_result(None, worker, IDLE)
    scheduler.on_trial_result(None, first, result(0, 1, 0.9))
    assert scheduler.on_trial_result(None, second, result(1, 1, 0.1)) == CONTINUE
    assert assigned(second) == [1, 2]
    assert study.trials()[1].state == "PRUNED"
    assert study.trials()[0].curve == {1: 0.9}


def test_a_trial_that_pauses_gives_its_worker_to_another_and_comes_back(
    search_file: Path, tmp_path: Path
) -> None:
    overrides = [
        "scheduler={name: freeze_thaw, min_epochs: 1}", "study.num_trials=9",
        "budget.total_epochs=24",
    ]  # fmt: skip
    config = load_search_config(search_file, overrides)[0]
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    places = TrialCheckpoints(tmp_path, 3, maximise=True)
    decisions = Engine(config, study, 1, Silent(), places)
    scheduler = StudyScheduler(decisions, lambda proposal: proposal, supply())  # type: ignore[arg-type]
    worker = slot("a")
    answer = scheduler.on_trial_result(None, worker, IDLE)
    epochs: dict[int, int] = {}
    while answer == CONTINUE:
        number = assigned(worker)[-1]
        epochs[number] = epoch = epochs.get(number, 0) + 1
        end = "completed" if epoch == config.train.max_epochs else None
        value = epoch / 10 + number / 100  # later trials are better
        answer = scheduler.on_trial_result(None, worker, result(number, epoch, value, end))
    assert scheduler.failure is None
    runs = assigned(worker)
    assert len(runs) > len(set(runs))  # a trial was resumed
    assert {t.state for t in study.trials()} == {"COMPLETE", "PRUNED"}
    assert sum(t.num_epochs for t in study.trials()) <= 24


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
        (None, "the worker ended without a word"),
    ],
)
def test_a_lost_workers_trial_is_tried_again_then_told_with_what_ray_knows(
    scheduler: StudyScheduler, study: SearchStudy, tmp_path: Path, text: str | None, message: str
) -> None:
    worker = slot("a", tmp_path / "error.txt")
    if text is not None:
        (tmp_path / "error.txt").write_text(text)
    for _ in range(4):  # max_retries, and once more
        scheduler.on_trial_result(None, worker, IDLE)
        scheduler.on_trial_error(None, worker)
    scheduler.on_trial_result(None, worker, IDLE)
    assert assigned(worker) == [0, 0, 0, 0, 1]
    trial = study.trials()[0]
    assert trial.state == "FAIL"
    assert trial.attributes["error"]["type"] == "WorkerLost"
    assert trial.attributes["error"]["message"] == message


def test_a_worn_out_warm_worker_is_replaced_before_it_is_given_more(
    scheduler: StudyScheduler,
) -> None:
    worker = slot("a")
    scheduler.on_trial_result(None, worker, IDLE)
    worn = result(0, 1, 0.5, "completed", worn_out=True)
    assert scheduler.on_trial_result(None, worker, worn) == CONTINUE
    assert assigned(worker) == [0]
    assert len(worker.temporary_state.ray_actor.retire.calls) == 1
    scheduler.on_trial_error(None, worker)  # the worker has ended
    assert scheduler.on_trial_result(None, worker, IDLE) == CONTINUE
    assert assigned(worker) == [0, 1]


def test_a_trial_that_its_worker_did_not_take_is_given_again(scheduler: StudyScheduler) -> None:
    worker = slot("a")
    scheduler.on_trial_result(None, worker, IDLE)
    scheduler.on_trial_result(None, worker, IDLE)
    assert assigned(worker) == [0, 0]


def test_workers_that_cannot_start_end_the_search(
    scheduler: StudyScheduler, tmp_path: Path
) -> None:
    error = tmp_path / "error.txt"
    error.write_text("Failure # 1 (occurred at x)\nray::T.__init__()\nImportError: no torch")
    slots = [slot("a", error), slot("b", error)]
    for worker in slots:
        scheduler.on_trial_add(None, worker)
    for worker in slots:
        for _ in range(MOST_FAILED_STARTS):
            assert scheduler.failure is None
            scheduler.on_trial_error(None, worker)
        assert worker.max_failures == 0  # Ray does not restart the worker
    assert isinstance(scheduler.failure, RunError)
    assert str(scheduler.failure) == "workers cannot start: ImportError: no torch"


class InATerminal(SearchObserver):
    """A SearchObserver that keeps notes, and a lock as a live display does."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lock = threading.RLock()

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def terminal() -> InATerminal:
    return InATerminal()  # type: ignore[abstract]


@pytest.fixture
def in_a_terminal(
    config: SearchConfig, study: SearchStudy, tmp_path: Path, terminal: InATerminal
) -> StudyScheduler:
    checkpoints = TrialCheckpoints(tmp_path, 3, maximise=True)
    engine = Engine(config, study, 2, terminal, checkpoints)
    return StudyScheduler(engine, str, supply())  # type: ignore[arg-type]


def test_why_a_worker_could_not_start_is_told_once(
    in_a_terminal: StudyScheduler, terminal: InATerminal, tmp_path: Path
) -> None:
    error = tmp_path / "error.txt"
    error.write_text("Failure # 1 (occurred at x)\nray::T.__init__()\nClusterError: not there")
    for worker in (slot("a", error), slot("b", error)):
        in_a_terminal.on_trial_add(None, worker)
        in_a_terminal.on_trial_error(None, worker)
    assert terminal.notes == [
        "a worker could not start, and is tried again: ClusterError: not there"
    ]


def test_a_worker_that_dies_after_its_start_has_not_failed_to_start(
    scheduler: StudyScheduler,
) -> None:
    worker = slot("a")
    scheduler.on_trial_add(None, worker)
    for _ in range(2 * MOST_FAILED_STARTS):
        scheduler.on_trial_result(None, worker, IDLE)
        scheduler.on_trial_error(None, worker)
    assert scheduler.failure is None


def test_a_report_of_another_trial_is_not_taken_for_the_workers(
    scheduler: StudyScheduler, study: SearchStudy
) -> None:
    worker = slot("a")
    scheduler.on_trial_result(None, worker, IDLE)
    assert scheduler.on_trial_result(None, worker, result(99, 1, 0.5)) == CONTINUE
    assert assigned(worker) == [0, 0]
    assert study.trials()[0].curve == {}
    assert scheduler.failure is None


def test_an_exception_in_a_hook_ends_the_search_and_is_kept(scheduler: StudyScheduler) -> None:
    worker = slot("a")
    scheduler.on_trial_result(None, worker, IDLE)
    broken = {REPORT: TrialReport(0, ({"epoch": 1},)), WORN_OUT: False}
    assert scheduler.on_trial_result(None, worker, broken) == CONTINUE
    assert isinstance(scheduler.failure, KeyError)


def test_a_stopped_trials_worker_lets_go_of_it_though_nothing_can_start(
    scheduler: StudyScheduler, decisions: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = slot("a"), slot("b")
    for worker in (first, second):
        scheduler.on_trial_result(None, worker, IDLE)
    scheduler.on_trial_result(None, first, result(0, 1, 0.9))
    monkeypatch.setattr(TrialCheckpoints, "has_room", lambda *_: False)
    assert scheduler.on_trial_result(None, second, result(1, 1, 0.1)) == CONTINUE
    assert second.temporary_state.ray_actor.assign.calls[-1] is None
    assert scheduler.on_trial_result(None, second, IDLE) == CONTINUE
    monkeypatch.undo()
    scheduler.on_trial_result(None, first, result(0, 2, 0.9))  # room is looked for after an event
    scheduler.on_trial_result(None, second, IDLE)
    assert second.temporary_state.ray_actor.assign.calls[-1].number == 2


def test_rays_pickles_hold_neither_study_nor_observer(decisions: Engine) -> None:
    assert vars(pickle.loads(pickle.dumps(decisions))) == {}


def test_ray_can_pickle_a_scheduler_whose_notes_go_to_a_terminal(
    in_a_terminal: StudyScheduler,
) -> None:
    assert pickle.loads(pickle.dumps(in_a_terminal)).failure is None


def test_fewer_slots_let_a_worker_go_once_its_trial_is_saved(
    decisions: Engine, study: SearchStudy
) -> None:
    asked = [2]
    workers = supply(asked)
    scheduler = StudyScheduler(decisions, lambda proposal: proposal, workers)  # type: ignore[arg-type]
    first, second = slot("a"), slot("b")
    for worker in (first, second):
        assert workers.suggest(worker.trial_id) == {}
        scheduler.on_trial_add(None, worker)
        scheduler.on_trial_result(None, worker, IDLE)
    assert workers.suggest("c") is None
    asked.append(1)
    assert workers.suggest("c") is None
    leave = second.temporary_state.ray_actor.leave
    assert scheduler.on_trial_result(None, second, result(1, 1, 0.9)) == CONTINUE
    assert scheduler.on_trial_result(None, first, result(0, 1, 0.95)) == CONTINUE
    assert (len(leave.calls), first.temporary_state.ray_actor.leave.calls) == (1, [])
    left = {REPORT: TrialReport(1, (), EndReason.LEFT), WORN_OUT: True}
    assert scheduler.on_trial_result(None, second, left) == STOP
    assert [trial.state for trial in study.trials()] == ["RUNNING"] * 2
    # The trial that gave its slot back is the next one to go on.
    asked.append(2)
    assert workers.suggest("c") == {}
    third = slot("c")
    scheduler.on_trial_add(None, third)
    scheduler.on_trial_result(None, third, IDLE)
    assert assigned(third) == [1]


def test_a_large_trial_runs_alone_and_the_one_that_made_way_goes_on_after_it(
    decisions: Engine, study: SearchStudy
) -> None:
    workers = supply(gpus=SharedGpus(0.5, lambda one: 1.0 if one.number == 1 else 0.5))
    scheduler = StudyScheduler(decisions, lambda proposal: proposal, workers)  # type: ignore[arg-type]
    first, second = slot("a"), slot("b")
    on_gpu = IDLE | {GPU: "node 0"}
    for worker in (first, second):
        workers.suggest(worker.trial_id)
        scheduler.on_trial_add(None, worker)
        scheduler.on_trial_result(None, worker, on_gpu)
    assert (assigned(first), assigned(second)) == ([0], [])  # trial 1 waits for the whole GPU
    assert workers.any_trains
    assert scheduler.on_trial_result(None, first, result(0, 1, 0.9)) == CONTINUE
    leave = first.temporary_state.ray_actor.leave
    assert len(leave.calls) == 1
    left = {REPORT: TrialReport(0, (), EndReason.LEFT), WORN_OUT: False}
    assert scheduler.on_trial_result(None, first, left) == CONTINUE
    assert scheduler.on_trial_result(None, second, on_gpu) == CONTINUE
    taker, other = (first, second) if 1 in assigned(first) else (second, first)
    assert assigned(taker)[-1] == 1
    number = len(assigned(other))
    scheduler.on_trial_result(None, other, on_gpu)
    assert len(assigned(other)) == number  # its share is lent
    scheduler.on_trial_result(None, taker, result(1, 1, 0.95, "completed"))
    scheduler.on_trial_result(None, other, on_gpu)
    assert sorted(assigned(taker)[-1:] + assigned(other)[-1:]) == [0, 2]
    assert study.trials()[0].state == "RUNNING"
    for worker in (taker, other):  # the last two share the GPU, and then all is over
        last = assigned(worker)[-1]
        answer = scheduler.on_trial_result(None, worker, result(last, 2, 0.9, "completed"))
    assert answer == STOP
    assert scheduler.failure is None


def test_where_workers_are_scattered_one_more_at_a_time_is_asked_for(decisions: Engine) -> None:
    gpus = SharedGpus(0.5, lambda _: 1.0)
    workers = supply(most=1, gpus=gpus)
    scheduler = StudyScheduler(decisions, lambda proposal: proposal, workers)  # type: ignore[arg-type]
    for name, gpu in (("a", "node 0"), ("b", "node 1")):  # as much as one large trial takes
        assert workers.suggest(name) == {}
        scheduler.on_trial_add(None, slot(name))
        scheduler.on_trial_result(None, slot(name), IDLE | {GPU: gpu})
    assert gpus.is_stuck
    assert not workers.any_trains
    assert workers.suggest("c") == {}
    third = slot("c")
    third.status = Trial.PENDING
    scheduler.on_trial_add(None, third)
    assert workers.suggest("d") is None  # the third has yet to come
    third.status = Trial.RUNNING
    scheduler.on_trial_result(None, third, IDLE | {GPU: "node 1"})
    assert not gpus.is_stuck
    assert workers.suggest("d") is None
    # There is one more than is allowed now; that on the GPU with the fewest goes.
    assert scheduler.on_trial_result(None, third, IDLE) == CONTINUE
    assert scheduler.on_trial_result(None, slot("a"), IDLE) == STOP
