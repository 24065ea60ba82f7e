"""A TrialScheduler for Ray Tune: passes epochs to the Engine, and trials to the workers."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.stopper import Stopper

from hpo.engine.engine import Engine
from hpo.errors import RunError
from hpo.execution.worker import GPU, REPORT, UNDER_WAY, WAITS, WORN_OUT, TrialTask
from hpo.execution.worker_supply import WorkerSupply
from hpo.study.trial import Proposal, TrialError, TrialReport

MOST_FAILED_STARTS: Final = 5
logger = logging.getLogger(__name__)


class StudyScheduler(FIFOScheduler):
    """Passes each epoch to the Engine, asks which trial runs next, and assigns it to a worker.

    A Ray trial is a worker, which runs many trials of the study one after another. So a worker
    starts once, Ray's overhead for a trial is paid once, and Ray's memory does not grow with the
    study. If a worker dies, Ray restarts it, and the study's trial resumes in the next free slot.
    An exception in a hook would tear down Ray's experiment, so the first one is stored in
    `failure`, which stops the search in an orderly way.

    Args:
        decisions: The Engine, which writes epochs to the study and decides which trial runs next.
        make_task: Turns a proposed trial into the task that a worker runs.
        supply: Knows the workers, and how many there are to be.
    """

    def __init__(
        self,
        decisions: Engine,
        make_task: Callable[[Proposal], TrialTask],
        supply: WorkerSupply,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.decisions, self._make_task, self.supply = decisions, make_task, supply
        self._noted: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._started: set[str] = set()
        self._num_failed_starts: dict[str, int] = {}
        self.failure: Exception | None = None

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._num_failed_starts.setdefault(trial.trial_id, 0)
        self.supply.add(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        _forget_results(tune_controller, trial)
        try:
            self._started.add(trial.trial_id)
            self.supply.note(trial, waits=result.get(WAITS, False))
            if GPU in result:
                self.supply.gpus.add_worker(trial.trial_id, result[GPU])
            if result.get(UNDER_WAY):
                return self._go_on(trial)
            return self._next(trial, result[REPORT], worn_out=result[WORN_OUT])
        except Exception as error:  # noqa: BLE001
            self._keep(error)
            return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        try:
            error = _last_error(trial)
            self.supply.note(trial, waits=False)
            number = self._numbers.pop(trial.trial_id, None)
            if number is not None:
                self.decisions.on_lost(number, error)
            self.supply.gpus.remove_worker(trial.trial_id)
            if trial.trial_id in self._started:
                self._started.discard(trial.trial_id)
                self._num_failed_starts[trial.trial_id] = 0
            else:
                self._on_failed_start(trial, error)
        except Exception as error_in_hook:  # noqa: BLE001
            self._keep(error_in_hook)

    def _on_failed_start(self, trial: Trial, error: TrialError) -> None:
        """Gives up a slot whose worker failed to start too often; with the last, the search."""
        if error.message not in self._noted:
            self._noted.add(error.message)
            self.decisions.note(f"a worker could not start, and is tried again: {error.message}")
        self._num_failed_starts[trial.trial_id] += 1
        if self._num_failed_starts[trial.trial_id] >= MOST_FAILED_STARTS:
            trial.max_failures = 0
        if min(self._num_failed_starts.values()) >= MOST_FAILED_STARTS:
            self._keep(RunError(f"workers cannot start: {error.message}"))

    def _next(self, trial: Trial, report: TrialReport | None, *, worn_out: bool) -> str:
        worker = trial.temporary_state.ray_actor
        assert worker is not None  # it has just reported
        number = self._numbers.get(trial.trial_id)
        if report is not None and report.number == number:
            if report.end_reason is None and self.decisions.on_report(report):
                return self._go_on(trial)
            self._forget(trial)
            self.decisions.on_end(report)
        elif number is not None:  # the worker never got the trial
            self._forget(trial)
            lost = TrialError("WorkerLost", "the worker did not take the trial")
            self.decisions.on_lost(number, lost)
        if self.decisions.finished and self.supply.gpus.can_stop(trial.trial_id):
            worker.assign.remote(None)  # the trial's files may be gone: it saves nothing more
            self.supply.gpus.remove_worker(trial.trial_id)
            return TrialScheduler.STOP
        if self.supply.lets_go(trial):
            self.supply.remove(trial)
            self._num_failed_starts.pop(trial.trial_id, None)
            return TrialScheduler.STOP
        if worn_out:
            worker.retire.remote()
            return TrialScheduler.CONTINUE
        self._assign(trial, worker, has_ended=report is not None)
        return TrialScheduler.CONTINUE

    def _assign(self, trial: Trial, worker: Any, *, has_ended: bool) -> None:
        """Gives a free worker the next trial, if there is one."""
        self.decisions.have_slots(self.supply.num_slots)
        proposal = self.supply.gpus.next_for(trial.trial_id, self.decisions.next_trial)
        if proposal is not None:
            self._numbers[trial.trial_id] = proposal.number
        # Ray runs a worker's calls in order, so the task arrives before the next step.
        if proposal is not None or has_ended:
            worker.assign.remote(None if proposal is None else self._make_task(proposal))

    def _go_on(self, trial: Trial) -> str:
        """Lets a trial train on, or, where it makes way, save itself and come back."""
        worker, gpus = trial.temporary_state.ray_actor, self.supply.gpus
        if worker is not None and (self.supply.lets_go(trial) or gpus.makes_way(trial.trial_id)):
            worker.leave.remote()
        return TrialScheduler.CONTINUE

    def _forget(self, trial: Trial) -> None:
        """Forgets which trial of the study a worker has."""
        del self._numbers[trial.trial_id]
        self.supply.gpus.end(trial.trial_id)

    def _keep(self, error: Exception) -> None:
        """Stores the first exception that a hook raised."""
        logger.debug("a hook of the search failed", exc_info=error)
        self.failure = self.failure or error


class StopEarly(Stopper):
    """Ends the whole search as soon as `is_over` says so."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __getstate__(self) -> dict[str, Any]:
        """An empty state, as the Engine's."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._is_over()


def _forget_results(tune_controller: Any, trial: Trial) -> None:
    """Frees the results that the worker has reported.

    Ray 2.60 keeps every result of an actor in memory while the actor lives. A worker lives as
    long as the search, so this would take megabytes a minute.
    """
    with contextlib.suppress(AttributeError, KeyError):  # other versions of Ray differ here
        controller = tune_controller._tune_controller
        controller._actor_manager.clear_actor_task_futures(controller._trial_to_actor[trial])


def _last_error(trial: Trial) -> TrialError:
    """The last error in Ray's error file, where each error is a block headed 'Failure # ...'."""
    text = ""
    if trial.error_file and Path(trial.error_file).is_file():
        text = Path(trial.error_file).read_text(encoding="utf-8")
    message = text.rpartition("Failure # ")[2].partition("\n")[2].strip()
    lines = message.splitlines() or ["the worker ended without a word"]
    # A worker's traceback ends with the error; a message from Ray itself begins with the error.
    return TrialError("WorkerLost", lines[-1] if "ray::" in lines[0] else lines[0], message)
