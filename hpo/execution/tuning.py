"""Runs a search's trials on the connected Ray: wires the Tuner, the scheduler and the workers."""

import logging
import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpo.config.schema import SearchConfig
from hpo.config.search_space import apply_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError, RunInterrupted, StoreError
from hpo.execution.cluster import TrialResources, nodes_and_free
from hpo.execution.gpu_share import resources_for
from hpo.execution.int8_drop import int8_images
from hpo.execution.interruption import noting_interruption
from hpo.execution.placement import PlacementWatch
from hpo.execution.shared_gpus import EqualShares, SharedGpus
from hpo.execution.slots import Slots
from hpo.execution.training import Training
from hpo.run_folder import RunFolder
from hpo.run_store import StoredTrials, store_of
from hpo.run_teachers import teachers_of
from hpo.run_weights import weights_of
from hpo.study.study import SearchStudy
from hpo.study.trial import Proposal
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
    *,
    may_grow: bool = False,
) -> None:
    """Runs trials on the connected Ray until the study is complete or a limit is reached.

    Args:
        config: The config of the search.
        run: The folder that gets the trials' checkpoints and learning curves.
        study: The study of the search; this process holds its lease.
        images: Identifies the images of the search; workers refuse other images.
        resources: CPUs, GPUs and processes of a trial, and how many trials run at a time.
        observer: Is told of every event.
        trainable: The class of the workers, for benchmarks; None: TrialWorker.
        may_grow: Whether nodes may join the cluster, for which the search then waits.

    Raises:
        RunInterrupted: A signal arrived; a resumed search continues the running trials.
        RunError: The first trials all failed for the same reason, or the search itself failed.
        DiskFullError: The disk has no room for checkpoints or the study; the search can be
            resumed.
        StoreError: The store of the checkpoints is away; the search can be resumed.
    """
    _set_up_tune()
    num = resources.num_slots
    observer.phase(f"starting {num} worker{'s' if num > 1 else ''}")
    scheduler = _scheduler(config, run, study, images, resources, observer, may_grow=may_grow)
    decisions, progress_before = scheduler.decisions, _progress(study)
    is_stopped = False
    if decisions.num_missing:
        settings = _worker_settings(config, run, images, resources)
        watch = PlacementWatch(config.resources, observer.note)
        is_stopped = _fit(config, resources, scheduler, settings, trainable, watch)
    decisions.settle()
    error = _reason(config, run, scheduler, is_stopped=is_stopped)
    if error is not None:
        raise error
    _tell_the_end(observer, decisions, has_progressed=_progress(study) != progress_before)


def _tell_the_end(observer: SearchObserver, decisions: Engine, *, has_progressed: bool) -> None:
    """Tells the user why no more trials run, where that is not their number."""
    if decisions.is_exhausted:
        observer.note("every configuration of the space has been tried")
    elif not has_progressed:
        observer.note(
            "no new trial was started: the remaining budget is reserved for the final trainings; "
            "raise budget.* to continue"
        )


def _set_up_tune() -> None:
    """Sets the variables that Ray Tune reads when it is imported, or when a Tuner starts."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # the WorkerSupply says how many
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _scheduler(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    images: ImagesId,
    resources: TrialResources,
    observer: SearchObserver,
    *,
    may_grow: bool,
) -> "StudyScheduler":
    """The TrialScheduler for Ray, with an Engine that decides as the config says."""
    from hpo.execution.ray_scheduler import StudyScheduler
    from hpo.execution.worker_supply import WorkerSupply

    store = store_of(config, run)
    checkpoints = TrialCheckpoints(
        run.trials if store is None else StoredTrials(store, observer.note),
        config.retrain.top_k,
        maximise=config.study.objective.maximises,
        max_bytes=config.budget.disk_bytes,
    )
    decisions = Engine(config, study, resources.num_slots, observer, checkpoints)
    slots = Slots(config.resources, resources, nodes_and_free, run.asked_slots, may_grow=may_grow)
    supply = WorkerSupply(slots, lambda: decisions.num_missing, _gpus(config, resources))
    return StudyScheduler(decisions, _task_maker(config, run, images, resources), supply)


def _fit(
    config: SearchConfig,
    resources: TrialResources,
    scheduler: "StudyScheduler",
    settings: "WorkerSettings",
    trainable: "type[Trainable] | None",
    watch: PlacementWatch,
) -> bool:
    """Runs the workers until the search ends; returns whether a signal ended it."""
    decisions = scheduler.decisions
    with (
        tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as scratch,
        noting_interruption() as stop,
    ):

        def is_over() -> bool:
            scheduler.failure = scheduler.failure or watch.look(scheduler.supply.any_trains)
            over = decisions.broken or decisions.paused or not decisions.num_missing
            return bool(stop() or scheduler.failure or over)

        _tuner(config, resources, scheduler, is_over, settings, scratch, trainable).fit()
        return stop()


def _reason(
    config: SearchConfig, run: RunFolder, scheduler: "StudyScheduler", *, is_stopped: bool
) -> Exception | None:
    """The exception that tells why the search ended early; None: all trials have ended."""
    decisions, failure = scheduler.decisions, scheduler.failure
    if decisions.paused:
        is_away = decisions.paused.type == StoreError.__name__
        return (StoreError if is_away else DiskFullError)(decisions.paused.message)
    if decisions.broken:
        return RunError(f"the first trials all failed for the same reason: {decisions.broken}")
    interrupted = RunInterrupted(interrupted_text(config, run)) if is_stopped else None
    if not decisions.num_missing:
        return interrupted
    if isinstance(failure, (DiskFullError, RunError, StoreError)):
        return failure
    if failure is not None:
        error = RunError(f"the search failed: {failure}")
        error.__cause__ = failure
        return error
    return interrupted or RunError(
        f"workers are gone and {decisions.num_missing} trials have not ended; continue with "
        "--resume"
    )


def interrupted_text(config: SearchConfig, run: RunFolder) -> str:
    """The message of a search that a signal has ended."""
    return f"interrupted; continue with --resume (study {config.study.name!r}, {run.path})"


def _progress(study: SearchStudy) -> tuple[int, int]:
    """The numbers of trials and of epochs in the study."""
    trials = study.trials()
    return len(trials), sum(trial.num_epochs for trial in trials)


def _worker_settings(
    config: SearchConfig, run: RunFolder, images: ImagesId, resources: TrialResources
) -> "WorkerSettings":
    from hpo.execution.worker import WorkerSettings

    data = None if resources.group is not None else config.train.resolved().data
    return WorkerSettings(
        resources.cpus,
        data,
        images,
        run.path.absolute(),
        run.mark(),
        store_of(config, run),
        tells_gpu=bool(resources.by_architecture),
    )


def _task_maker(
    config: SearchConfig, run: RunFolder, images: ImagesId, resources: TrialResources
) -> "Callable[[Proposal], TrialTask]":
    """Returns a function that turns a proposed trial into a worker's task."""
    from hpo.execution.worker import TrialTask, trial_folder

    run_dir, mark, store = run.path.absolute(), run.mark(), store_of(config, run)

    def make(proposal: Proposal) -> TrialTask:
        number = proposal.number
        train = apply_params(config.train, proposal.params, f"trial {number}")
        own = resources_for(train, resources)
        if resources.gpus == 0:
            # Ray may leave GPUs visible to a process without GPUs.
            train = train.model_copy(update={"device": "cpu"})
        folder, weights = trial_folder(run_dir, number), weights_of(run, train.model)
        training = Training(
            train,
            folder,
            images,
            own.num_gpus,
            weights,
            teachers_of(run, train),
            mark=mark,
            num_epochs=proposal.num_epochs_reported,
            store=store,
            int8_images=int8_images(config),
        )
        return TrialTask(number, training, resources.group, own.cpus)

    return make


def _gpus(config: SearchConfig, resources: TrialResources) -> EqualShares:
    """Says which worker runs the next trial, by the share of a GPU that it takes."""
    if not resources.by_architecture:
        return EqualShares()

    def share_of(proposal: Proposal) -> float:
        train = apply_params(config.train, proposal.params, f"trial {proposal.number}")
        return resources_for(train, resources).gpus

    return SharedGpus(resources.gpus, share_of)


def _tuner(
    config: SearchConfig,
    resources: TrialResources,
    scheduler: "StudyScheduler",
    is_over: Callable[[], bool],
    settings: "WorkerSettings",
    scratch: str,
    trainable: "type[Trainable] | None",
) -> Any:
    """A Tuner whose Ray trials are the workers.

    The Tuner has no loggers, checkpoints, snapshots or output; the study replaces them.
    """
    from ray import tune

    from hpo.execution.ray_scheduler import StopEarly
    from hpo.execution.worker import SETTINGS, TrialWorker

    return tune.Tuner(
        tune.with_resources(trainable or TrialWorker, _resources_of_worker(resources)),
        param_space={SETTINGS: settings},
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=scheduler.supply,
            scheduler=scheduler,
            reuse_actors=False,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=config.study.name,
            storage_path=scratch,
            stop=StopEarly(is_over),
            # Trainings save their own checkpoints, in the run folder.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=-1),  # the Engine counts failures
            verbose=0,
        ),
    )


def _resources_of_worker(resources: TrialResources) -> dict[str, float]:
    """The resources that Ray reserves for a worker; Ray Train reserves those of a group."""
    if resources.group is not None:
        return {"memory": 1.0}  # Ray refuses a trial without any resource
    return {"cpu": resources.cpus, "gpu": resources.gpus}
