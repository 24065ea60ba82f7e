"""Runs trials on a connected Ray: Tuner, scheduler and workers put together."""

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpo.config.schema import SearchConfig
from hpo.config.search_space import apply_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError, RunInterrupted
from hpo.execution.cluster import TrialResources
from hpo.execution.training import Training
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import Proposal
from sgformer.config import maximises
from sgformer.data.image_cache import ImagesId
from sgformer.errors import DiskFullError

if TYPE_CHECKING:
    from ray.tune import Trainable

    from hpo.execution.ray_scheduler import StudyScheduler
    from hpo.execution.worker import TrialTask, WorkerSettings


def run_trials(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    images: ImagesId,
    resources: TrialResources,
    observer: SearchObserver,
    trainable: "type[Trainable] | None" = None,
) -> None:
    """Runs trials on the connected Ray until the study has them all.

    Args:
        config: What to search.
        run: Gets the trials' checkpoints and curves.
        study: Of the search, leased.
        images: Those that trials are trained over.
        resources: Of a trial, and how many run at a time.
        observer: Hears of every event.
        trainable: Of the workers instead of TrialWorker, for measuring.

    Raises:
        RunInterrupted: A signal came; what ran is continued on a resume.
        RunError: The first trials all failed alike, or the search itself did.
        DiskFullError: There is no room for checkpoints or the study; it can be continued.
    """
    # Ray Tune reads these when it is imported or started.
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_MAX_PENDING_TRIALS_PG": str(resources.num_slots),
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    observer.phase(
        f"starting {resources.num_slots} worker{'s' if resources.num_slots > 1 else ''}"
    )
    from hpo.execution.ray_scheduler import StudyScheduler

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    checkpoints = TrialCheckpoints(
        run.trials,
        config.retrain.top_k,
        maximise=maximises(config.study.metric),
        max_bytes=config.budget.disk_bytes,
    )
    decisions = Engine(config, study, resources.num_slots, observer, checkpoints)
    scheduler = StudyScheduler(decisions, _task_maker(config, run, images, resources))
    progress_before = _progress(study)
    is_stopped = False
    if decisions.num_missing:
        num_slots = min(resources.num_slots, decisions.num_missing)
        resources = replace(resources, num_slots=num_slots)
        settings = _worker_settings(config, images, resources)
        is_stopped = _fit(config, resources, scheduler, settings, trainable)
    decisions.settle()
    if decisions.paused:
        raise DiskFullError(decisions.paused)
    if decisions.broken:
        raise RunError(f"the first trials all failed for the same reason: {decisions.broken}")
    if decisions.num_missing:
        raise _reason(config, run, scheduler, decisions.num_missing, is_stopped=is_stopped)
    if decisions.is_exhausted:
        observer.note("every configuration of the space has been tried")
    elif _progress(study) == progress_before:
        observer.note(
            "no trial was begun: the budget leaves no room beside what is set aside for the "
            "trainings after the search; raise it (budget) to go on"
        )


def _fit(
    config: SearchConfig,
    resources: TrialResources,
    scheduler: "StudyScheduler",
    settings: "WorkerSettings",
    trainable: "type[Trainable] | None",
) -> bool:
    """Runs workers until nothing is left, or something ended it: whether that was a signal."""
    decisions = scheduler.decisions
    with (
        tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as scratch,
        _stopping_on_signals() as stop,
    ):

        def is_over() -> bool:
            over = decisions.broken or decisions.paused or not decisions.num_missing
            return bool(stop() or scheduler.failure or over)

        _tuner(config, resources, scheduler, is_over, settings, scratch, trainable).fit()
        return stop()


def _reason(
    config: SearchConfig,
    run: RunFolder,
    scheduler: "StudyScheduler",
    num_missing: int,
    *,
    is_stopped: bool,
) -> Exception:
    """Why trials have not ended."""
    if isinstance(scheduler.failure, (DiskFullError, RunError)):
        return scheduler.failure
    if scheduler.failure is not None:
        error = RunError(f"the search failed: {scheduler.failure}")
        error.__cause__ = scheduler.failure
        return error
    if is_stopped:
        return RunInterrupted(
            f"interrupted; continue with --resume (study {config.study.name!r}, {run.path})"
        )
    return RunError(f"workers are gone and {num_missing} trials have not ended: --resume")


def _progress(study: SearchStudy) -> tuple[int, int]:
    """Trials and epochs so far."""
    trials = study.trials()
    return len(trials), sum(trial.num_epochs for trial in trials)


def _worker_settings(
    config: SearchConfig, images: ImagesId, resources: TrialResources
) -> "WorkerSettings":
    from hpo.execution.worker import WorkerSettings

    data = None if resources.group is not None else config.train.data
    return WorkerSettings(resources.cpus, data, images)


def _task_maker(
    config: SearchConfig, run: RunFolder, images: ImagesId, resources: TrialResources
) -> "Callable[[Proposal], TrialTask]":
    """From a proposed trial to what a worker takes."""
    from hpo.execution.worker import TrialTask, trial_folder

    run_dir = run.path.absolute()

    def make(proposal: Proposal) -> TrialTask:
        number = proposal.number
        train = apply_params(config.train, proposal.params, f"trial {number}")
        if resources.gpus == 0:
            # Ray may leave GPUs visible to a process that was given none.
            train = train.model_copy(update={"device": "cpu"})
        num_gpus = resources.gpus * resources.num_processes
        training = Training(train, trial_folder(run_dir, number), images, num_gpus)
        return TrialTask(number, training, resources.group)

    return make


def _tuner(
    config: SearchConfig,
    resources: TrialResources,
    scheduler: "StudyScheduler",
    is_over: Callable[[], bool],
    settings: "WorkerSettings",
    scratch: str,
    trainable: "type[Trainable] | None",
) -> Any:
    """Ray's Tuner of one trial a slot, stripped of what the study does.

    That is: searcher, loggers, checkpoints, snapshots, output.
    """
    from ray import tune

    from hpo.execution.worker import SETTINGS, TrialWorker

    return tune.Tuner(
        tune.with_resources(trainable or TrialWorker, _resources_of_worker(resources)),
        param_space={SETTINGS: settings},
        tune_config=tune.TuneConfig(
            num_samples=resources.num_slots,
            scheduler=scheduler,
            reuse_actors=False,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=config.study.name,
            storage_path=scratch,
            stop=_stopper(is_over),
            # Trials keep their own checkpoints, in the run folder.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=-1),  # the decisions count them
            verbose=0,
        ),
    )


def _resources_of_worker(resources: TrialResources) -> dict[str, float]:
    """What a trial's own process takes; Ray Train reserves what a group's processes do."""
    if resources.group is not None:
        return {"memory": 1.0}  # nothing at all is refused
    return {"cpu": resources.cpus, "gpu": resources.gpus}


def _stopper(is_over: Callable[[], bool]) -> Any:
    from ray.tune import Stopper

    class StopEarly(Stopper):
        """Ends the whole search on a signal, or when going on makes no sense."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return is_over()

    return StopEarly()


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came; a second one kills."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def receive(number: int, _frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for name in (signal.SIGINT, signal.SIGTERM):
        previous[name] = signal.signal(name, receive)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
