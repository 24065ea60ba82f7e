"""The Ray trainable: the only bridge between the trainer and Ray.

Importing this is cheap; torch comes when a worker starts, which then serves many trials.
"""

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

from hpo.errors import ProcessDiedError, WornOutError
from hpo.execution.attempts import Attempts
from hpo.execution.cluster import GroupResources
from hpo.execution.group_training import run_group_training
from hpo.execution.training import Progress, Training, run_training, warm_up
from hpo.study.trial import TrialError, TrialReport
from sgformer.config import DataConfig
from sgformer.data.image_cache import ImagesId
from sgformer.errors import DiskFullError, InputError, OutOfMemoryError

REPORT, WORN_OUT, SETTINGS = "report", "worn_out", "settings"
SECONDS_IDLE: Final = 0.2
# A worker holds more memory than after its first trial where a trial has left something.
MOST_GROWTH: Final = 1.5
MOST_GROWTH_BYTES: Final = 2**28


def trial_folder(run_dir: Path, number: int) -> Path:
    """Where a trial's checkpoints and curve lie."""
    return run_dir / "trials" / str(number)


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is started with.

    Attributes:
        num_threads: How many threads torch uses.
        data: The images to open beforehand; None where a group of processes trains.
        images: Identifies the search's images.
    """

    num_threads: int
    data: DataConfig | None = None
    images: ImagesId | None = None


@dataclass(frozen=True)
class TrialTask:
    """A trial that a worker is to run.

    Attributes:
        number: The trial's number in the study.
        training: What to train.
        group: The processes that train the trial in the worker's place; None: the worker trains.
    """

    number: int
    training: Training
    group: GroupResources | None = None


class TrialWorker(tune.Trainable):
    """Runs trials one after another in a warm process, one epoch each step.

    To Ray a worker is a single trial that lasts as long as the search. The scheduler calls
    `assign` to say which trial of the study comes next. A trial goes on from the last checkpoint
    in its folder, if there is one. A training that raises is tried once more; a second exception
    is data, in the report. Only a dead process is left to Ray.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._epochs: Generator[Progress] | None = None
        self._task: TrialTask | None = None
        self._retried: TrialError | None = None
        self._idle, self._retired = False, False
        self._bytes_after_first: int | None = None
        self._worn_out = False
        self._warm_up(config[SETTINGS])

    def assign(self, task: TrialTask | None) -> None:
        """Sets what to run from the next step on; None: nothing, for now."""
        self._task, self._retried, self._idle = task, None, False
        self._end()

    def retire(self) -> None:
        """Has the next step raise, so that Ray replaces this process by a new one."""
        self._retired = True

    def step(self) -> dict[str, Any]:
        """Trains an epoch; gives its TrialReport, and whether the worker should be replaced.

        The report is None while there is nothing to do.

        Raises:
            WornOutError: `retire` was called.
        """
        if self._retired:
            raise WornOutError("a worn-out worker is replaced")
        if self._task is None:
            if self._idle:
                time.sleep(SECONDS_IDLE)
            self._idle = True
            return {REPORT: None, WORN_OUT: False}
        number = self._task.number
        try:
            progress = self._next_epoch(self._task)
        except Exception as error:
            self._end()
            if _is_of_the_process(error):
                raise  # Ray replaces the process and tries again
            reason = "paused" if isinstance(error, DiskFullError) else "failed"
            # The budget counts the epoch that broke, too.
            num_begun = Attempts(self._task.training.folder).count()
            facts = {"hostname": socket.gethostname(), "num_epochs_trained": num_begun}
            report = TrialReport(number, (), reason, facts, _as_text(error))
        else:
            report = TrialReport(number, progress.epochs, progress.end_reason, progress.facts)
        if report.end_reason is not None:
            self._end()
            self._task = None
        self._worn_out |= report.end_reason == "failed"
        return {REPORT: report, WORN_OUT: self._worn_out}

    def cleanup(self) -> None:
        self._end()

    def _warm_up(self, settings: WorkerSettings) -> None:
        if settings.data is None:
            return
        warm_up(settings.data, settings.images)
        import torch

        torch.set_num_threads(settings.num_threads)
        # Collecting after each trial need not look at what was imported: 0.3 s each time.
        gc.collect()
        gc.freeze()

    def _end(self) -> None:
        """Frees the model, or the processes, of the trial that the worker is at."""
        epochs, self._epochs = self._epochs, None
        if epochs is None:
            return
        epochs.close()
        if "torch" in sys.modules:
            from sgformer.training.device import held_bytes, release_memory

            release_memory()  # a GPU may be shared with another trial
            self._worn_out |= self._has_grown_to(held_bytes())

    def _has_grown_to(self, held: int) -> bool:
        """Whether the worker holds far more memory than when its first trial had ended."""
        if self._bytes_after_first is None:
            self._bytes_after_first = held
        first = self._bytes_after_first
        return held > max(MOST_GROWTH * first, first + MOST_GROWTH_BYTES)

    def _next_epoch(self, task: TrialTask) -> Progress:
        """Trains the next epoch; after a first exception, again from the last checkpoint."""
        if self._epochs is None:
            self._epochs = _start(task)
        progress = None
        try:
            progress = next(self._epochs)
        except Exception as error:
            if self._retried is not None or not _is_worth_a_retry(error):
                raise
            self._retried = _as_text(error)
        if progress is None:  # here the exception, which held the first training, is freed
            self._end()
            return self._next_epoch(task)
        if self._retried is None:
            return progress
        facts = {**progress.facts, "retried_error": asdict(self._retried)}
        return replace(progress, facts=facts)


def _start(task: TrialTask) -> Generator[Progress]:
    if task.group is not None:
        return run_group_training(task.training, task.group)
    return run_training(task.training)


def _as_text(error: Exception) -> TrialError:
    trace = "".join(traceback.format_exception(error))
    return TrialError(type(error).__name__, str(error), trace)


def _is_worth_a_retry(error: Exception) -> bool:
    """Whether a second try may succeed; not where input, memory or disk forbid it."""
    from sgformer.training.device import is_out_of_memory

    hopeless = isinstance(error, (InputError, OutOfMemoryError, DiskFullError))
    return not (hopeless or is_out_of_memory(error) or _is_of_the_process(error))


def _is_of_the_process(error: Exception) -> bool:
    """Whether a process is dead or useless: a CUDA error, unless memory ran out, stays with it."""
    import torch

    from sgformer.training.device import is_out_of_memory

    if isinstance(error, ProcessDiedError):
        return True
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
