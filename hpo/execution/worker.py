"""TrialWorker, the Ray trainable: the only bridge between the trainer and Ray.

Importing this module is cheap; torch is imported when a worker starts, which runs many trials.
"""

import contextlib
import gc
import socket
import sys
import time
import traceback
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from ray import tune

from hpo.errors import ClusterError, ProcessDiedError, StoreError, WornOutError
from hpo.execution.cluster import GroupResources
from hpo.execution.group_training import WarmGroup
from hpo.execution.interruption import noting_sigterm
from hpo.execution.node_check import missing_images
from hpo.execution.saver import Progress
from hpo.execution.training import Training, leave, run_training, warm_up
from hpo.run_folder import RunFolder
from hpo.run_store import RunStore
from hpo.study.trial import EndReason, TrialError, TrialReport
from sgformer.catalog import model_facts
from sgformer.config import TrainConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data_config import DataConfig
from sgformer.errors import DiskFullError, InputError, OutOfMemoryError

REPORT, WORN_OUT, SETTINGS, GPU = "report", "worn_out", "settings", "gpu"
UNDER_WAY: Final = "under_way"  # of a step: whether it has ended within an epoch
WAITS: Final = "waits"  # of such a step: whether a group's processes have not been placed yet
SECONDS_IDLE: Final = 0.2
# The settings on which the memory of a training depends most.
MEMORY_SETTINGS: Final = ("precision", "grad_checkpointing", "freeze", "ema_decay")
# A worker leaks memory, and is replaced, if it holds this much more than after its first trial.
MOST_GROWTH: Final = 1.5
MOST_GROWTH_BYTES: Final = 2**28


def trial_folder(run_dir: Path, number: int) -> Path:
    """The folder of a trial's checkpoints and learning curve."""
    return run_dir / "trials" / str(number)


def place_of_gpu() -> str:
    """The node and the GPU that Ray has given to this process."""
    import ray

    here = ray.get_runtime_context()
    return f"{here.get_node_id()} {','.join(here.get_accelerator_ids()['GPU'])}"


@dataclass(frozen=True)
class WorkerSettings:
    """The settings that a worker starts with.

    Attributes:
        num_threads: The number of threads that torch uses.
        data: The images to open at the start; None: a group of processes trains instead.
        images: Identifies the images of the search.
        run_dir: The run's folder, which the worker must see, and where the driver hears of a
            worker that decodes images; None: it is not asked for.
        mark: The mark of the run's folder as the driver sees it.
        store: Where trials keep their checkpoints in place of the run's folder, which the worker
            then need not see.
        tells_gpu: Whether the worker says which GPU it is on.
    """

    num_threads: int
    data: DataConfig | None = None
    images: ImagesId | None = None
    run_dir: Path | None = None
    mark: str | None = None
    store: RunStore | None = None
    tells_gpu: bool = False


@dataclass(frozen=True)
class TrialTask:
    """A trial for a worker to run.

    Attributes:
        number: The trial's number in the study.
        training: The configuration, folder and images to train with.
        group: The processes that train the trial in place of the worker; None: the worker trains.
        num_threads: The number of threads that torch uses; None: the worker's.
    """

    number: int
    training: Training
    group: GroupResources | None = None
    num_threads: int | None = None


class KnownMicroBatches:
    """The last micro-batch of each architecture whose training ran out of memory.

    Each worker process keeps its own: whether a micro-batch fits depends on the GPU, and on what
    else runs there. A model with BatchNorm, whose result depends on the micro-batches, has none:
    the result would depend on what the worker has trained before.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[Any, ...], int] = {}

    def apply_to(self, training: Training) -> Training:
        """The training, which begins with the micro-batch known for its architecture, if any."""
        known = self._sizes.get(_architecture(training.config))
        return training if known is None else replace(training, micro_batch_size=known)

    def note(self, config: TrainConfig, size: int) -> None:
        """Notes the micro-batch of a training that may have run out of memory."""
        asked = config.optimizer.micro_batch_size or config.optimizer.batch_size
        if size < asked and not model_facts(config.model.name).has_batch_norm:
            self._sizes[_architecture(config)] = size


class TrialWorker(tune.Trainable):
    """Runs trials one after another in the same process, one epoch in each step, or a part of it.

    For Ray a worker is a single trial that lasts as long as the search. The scheduler calls
    `assign` to set the next trial of the study. A trial resumes from the last checkpoint in its
    folder, if there is one. A training that raises an exception is tried once more; a second
    exception becomes part of the report. Only the death of a process is left to Ray.

    Ray stops a worker between two steps, and kills it after ten seconds. So a step lasts about two
    seconds at most, and `stop` saves the training within its epoch. SIGTERM does the same.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._epochs: Generator[Progress | None] | None = None
        self._task: TrialTask | None = None
        self._retried: TrialError | None = None
        self._idle = self._retired = self._leaves = self._waits = False
        self._bytes_after_first: int | None = None
        self._worn_out = False
        self._micro_batches = KnownMicroBatches()
        self._group = WarmGroup()
        settings: WorkerSettings = config[SETTINGS]
        self._place = {GPU: place_of_gpu()} if settings.tells_gpu else {}
        if settings.store is not None:
            settings.store.check()
        elif settings.run_dir is not None:
            RunFolder(settings.run_dir).check_mark(settings.mark)
        self._is_told_to_end = noting_sigterm()
        self._warm_up(settings)

    def assign(self, task: TrialTask | None) -> None:
        """Sets the trial to run from the next step on; None: the worker idles."""
        self._task, self._retried, self._idle = task, None, False
        self._end()

    def leave(self) -> None:
        """Makes the next step save the trial within its epoch, and give it back.

        The worker may then get another trial.
        """
        self._leaves = True

    def retire(self) -> None:
        """Makes the next step raise WornOutError, so that Ray starts a new process."""
        self._retired = True

    def step(self) -> dict[str, Any]:
        """Trains an epoch; returns its TrialReport, and whether the worker should be replaced.

        The report is None while the worker idles, and within an epoch, which the result says.

        Raises:
            WornOutError: `retire` was called.
            SystemExit: The process got SIGTERM. If it had a trial, the step before has saved and
                returned that, so that it goes on elsewhere.
        """
        if self._task is not None and (self._leaves or self._is_told_to_end()):
            return self._left(self._task)
        self._check_whether_to_end()
        if self._task is None:
            if self._idle:
                time.sleep(SECONDS_IDLE)
            self._idle = True
            return {REPORT: None, WORN_OUT: False, **self._place}
        report = self._next_report(self._task)
        if report is None:
            return {REPORT: None, WORN_OUT: False, UNDER_WAY: True, WAITS: self._waits}
        if report.end_reason is not None:
            self._end()
            self._task = None
        self._worn_out |= report.end_reason == "failed"
        return {REPORT: report, WORN_OUT: self._worn_out}

    def cleanup(self) -> None:
        """Ray calls this in `stop`, at the search's end."""
        if self._epochs is not None:
            leave(self._epochs)
        self._end()
        self._group.close()

    def _left(self, task: TrialTask) -> dict[str, Any]:
        """Saves the trial within its epoch, and gives it back."""
        self.cleanup()
        self._task, self._leaves = None, False
        worn_out = self._worn_out or self._is_told_to_end()
        return {REPORT: TrialReport(task.number, (), EndReason.LEFT), WORN_OUT: worn_out}

    def _check_whether_to_end(self) -> None:
        if self._is_told_to_end():
            raise SystemExit("the worker's process got SIGTERM")
        if self._retired:
            raise WornOutError("a worn-out worker is replaced")

    def _next_report(self, task: TrialTask) -> TrialReport | None:
        """The report of the next epoch, or of what has gone wrong in it; None within the epoch."""
        try:
            progress = self._next_epoch(task)
        except Exception as error:
            self._end()
            if _is_of_the_process(error):
                raise  # Ray starts a new process
            facts: dict[str, Any] = {"hostname": socket.gethostname()}
            is_away = isinstance(error, StoreError)
            with contextlib.suppress(StoreError):
                if not is_away:  # the budget counts the failed epoch, too
                    facts["num_epochs_trained"] = task.training.num_begun()
            may_go_on = is_away or isinstance(error, DiskFullError)
            reason = EndReason.PAUSED if may_go_on else EndReason.FAILED
            return TrialReport(task.number, (), reason, facts, _as_text(error))
        if progress is None:
            return None
        return TrialReport(task.number, progress.epochs, progress.end_reason, progress.facts)

    def _warm_up(self, settings: WorkerSettings) -> None:
        if settings.data is None:
            return
        if fault := missing_images(settings.data.for_decoding(), settings.images):
            raise ClusterError(fault)
        warm_up(settings.data, settings.images, settings.run_dir)
        import torch

        torch.set_num_threads(settings.num_threads)
        # Keeps imported objects out of later garbage collections, which saves 0.3 s each.
        gc.collect()
        gc.freeze()

    def _start(self, task: TrialTask) -> Generator[Progress | None]:
        self._waits = task.group is not None
        if task.group is not None:
            return self._group.run(task.training, task.group, self._note_start)
        if task.num_threads is not None:
            import torch

            torch.set_num_threads(task.num_threads)
        return run_training(task.training)

    def _note_start(self) -> None:
        self._waits = False

    def _end(self) -> None:
        """Ends the present training, and frees its model or its group of processes."""
        epochs, self._epochs = self._epochs, None
        if epochs is None:
            return
        epochs.close()
        if "torch" in sys.modules:
            from sgformer.training.device import held_bytes, release_memory

            release_memory()  # a GPU may be shared with another trial
            self._worn_out |= self._has_grown_to(held_bytes())

    def _has_grown_to(self, held: int) -> bool:
        """Whether the worker holds far more bytes of memory than after its first trial."""
        if self._bytes_after_first is None:
            self._bytes_after_first = held
        first = self._bytes_after_first
        return held > max(MOST_GROWTH * first, first + MOST_GROWTH_BYTES)

    def _next_epoch(self, task: TrialTask) -> Progress | None:
        """Trains the next epoch or a part of it, of which None comes back.

        After the first exception it resumes from the last checkpoint.
        """
        if self._epochs is None:
            training = self._micro_batches.apply_to(task.training)
            self._epochs = self._start(replace(task, training=training))
        has_failed, progress = False, None
        try:
            progress = next(self._epochs)
        except Exception as error:
            if self._retried is not None or not _is_worth_a_retry(error):
                raise
            self._retried, has_failed = _as_text(error), True
        if has_failed:  # by now the exception, and the training it held, is freed
            self._end()
            return self._next_epoch(task)
        if progress is None:
            return None
        # After an exception the training goes on from no earlier epoch than this one.
        self._task = replace(task, training=task.training.after(progress.epochs[-1]))
        self._micro_batches.note(task.training.config, progress.facts["micro_batch_size"])
        if self._retried is None:
            return progress
        facts = {**progress.facts, "retried_error": asdict(self._retried)}
        return replace(progress, facts=facts)


def _as_text(error: Exception) -> TrialError:
    trace = "".join(traceback.format_exception(error))
    return TrialError(type(error).__name__, str(error), trace)


def _is_worth_a_retry(error: Exception) -> bool:
    """Whether a second try may succeed: not after errors of input, memory, disk or process."""
    from sgformer.training.device import is_out_of_memory

    hopeless = isinstance(error, (InputError, OutOfMemoryError, DiskFullError, StoreError))
    return not (hopeless or is_out_of_memory(error) or _is_of_the_process(error))


def _is_of_the_process(error: Exception) -> bool:
    """Whether a process died, or a CUDA error other than out-of-memory made it unusable."""
    import torch

    from sgformer.training.device import is_out_of_memory

    if isinstance(error, ProcessDiedError):
        return True
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def _architecture(config: TrainConfig) -> tuple[Any, ...]:
    others = (getattr(config, name) for name in MEMORY_SETTINGS)
    return (config.model.name, config.data.image_size, config.optimizer.batch_size, *others)
