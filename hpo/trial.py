"""The Ray trainable: the only bridge between the trainer and Ray.

Importing this is cheap; torch comes with the first trial of a worker, which then serves many.
"""

import socket
import sys
import traceback
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from hpo.cluster import GroupResources
from hpo.errors import ProcessDiedError
from hpo.group_training import run_group_training
from hpo.training import Progress, Training, run_training
from hpo.trial_report import TrialError, TrialReport
from sgformer.errors import DiskFullError, InputError, OutOfMemoryError

REPORT, TASK = "report", "task"


def trial_folder(run_dir: Path, number: int) -> Path:
    """Where a trial's checkpoints and curve lie."""
    return run_dir / "trials" / str(number)


@dataclass(frozen=True)
class TrialTask:
    """What a worker is given.

    Attributes:
        number: The trial's in the study.
        training: What to train.
        num_threads: Of torch, in each process.
        group: Several processes for this trial, beside the worker; None: the worker trains.
    """

    number: int
    training: Training
    num_threads: int
    group: GroupResources | None = None


class TrialTrainable(tune.Trainable):
    """Runs trials one after another in a warm process, an epoch a step.

    Ray's config for a trial has its TrialTask. A trial goes on from the last checkpoint in its
    folder if there is one. What goes wrong in a training is tried once more, then is data, told
    in the report; only a dead process is Ray's business.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._epochs: Generator[Progress] | None = None
        self._begin(config[TASK])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config[TASK])
        return True

    def step(self) -> dict[str, Any]:
        number = self._task.number
        try:
            progress = self._next_epoch()
        except Exception as error:
            self._end()
            if _is_of_the_process(error):
                raise  # Ray replaces the process and tries again
            reason = "paused" if isinstance(error, DiskFullError) else "failed"
            facts = {"hostname": socket.gethostname()}
            report = TrialReport(number, (), reason, facts, _as_text(error))
        else:
            report = TrialReport(number, progress.epochs, progress.end_reason, progress.facts)
        return {REPORT: report, "number": number, "done": report.end_reason is not None}

    def cleanup(self) -> None:
        self._end()

    def _begin(self, task: TrialTask) -> None:
        self._end()
        self._task = task
        self._retried: TrialError | None = None

    def _end(self) -> None:
        """Lets go of the trial that the worker is at: its model, and its processes."""
        if self._epochs is not None:
            self._epochs.close()
        self._epochs = None
        if "torch" in sys.modules:
            from sgformer.memory import release_memory

            release_memory()  # a GPU may be shared with another trial

    def _next_epoch(self) -> Progress:
        """The next epoch; after a first exception, once more from the last checkpoint."""
        if self._epochs is None:
            self._epochs = self._start()
        progress = None
        try:
            progress = next(self._epochs)
        except Exception as error:
            if self._retried is not None or not _is_worth_a_retry(error):
                raise
            self._retried = _as_text(error)
        if progress is None:  # and the exception, which held the first training, is gone
            self._end()
            return self._next_epoch()
        if self._retried is None:
            return progress
        facts = {**progress.facts, "retried_error": asdict(self._retried)}
        return replace(progress, facts=facts)

    def _start(self) -> Generator[Progress]:
        if self._task.group is not None:
            return run_group_training(self._task.training, self._task.group)
        import torch

        torch.set_num_threads(self._task.num_threads)
        return run_training(self._task.training)


def _as_text(error: Exception) -> TrialError:
    trace = "".join(traceback.format_exception(error))
    return TrialError(type(error).__name__, str(error), trace)


def _is_worth_a_retry(error: Exception) -> bool:
    """Whether it may go well at once: not what input, memory or disk do not allow."""
    from sgformer.memory import is_out_of_memory

    hopeless = isinstance(error, (InputError, OutOfMemoryError, DiskFullError))
    return not (hopeless or is_out_of_memory(error) or _is_of_the_process(error))


def _is_of_the_process(error: Exception) -> bool:
    """Whether a process is gone, or of no more use: a CUDA error but for want of memory stays."""
    import torch

    from sgformer.memory import is_out_of_memory

    if isinstance(error, ProcessDiedError):
        return True
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
