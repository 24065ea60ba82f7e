"""A worker that reports epochs without training, for tests of what Ray does with workers."""

import time
from typing import Any, Final

from ray import tune

from hpo.execution.worker import (
    REPORT,
    SETTINGS,
    WORN_OUT,
    TrialTask,
    WorkerSettings,
    trial_folder,
)
from hpo.study.trial import EndReason, TrialReport

NUM_EPOCHS: Final = 3


def trains_nothing(seconds: float = 0.0) -> type[tune.Trainable]:  # noqa: C901  a class in it
    """A worker's class in TrialWorker's place; Ray gets a local class by value.

    Args:
        seconds: How long each of a trial's three epochs takes.
    """

    class TrainsNothing(tune.Trainable):
        """Reports epochs without training."""

        def setup(self, config: dict[str, Any]) -> None:
            self.task: TrialTask | None = None
            self.settings: WorkerSettings = config[SETTINGS]
            self.leaves = False

        def leave(self) -> None:
            self.leaves = True

        def assign(self, task: TrialTask | None) -> None:
            self.task, self.epoch = task, 0
            if task is not None:
                self.epoch = self.known = task.training.num_epochs
                assert task.training.mark == self.settings.mark is not None
                assert trial_folder(self.settings.run_dir, task.number) == task.training.folder

        def step(self) -> dict[str, Any]:
            if self.task is None:
                return {REPORT: None, WORN_OUT: False}
            time.sleep(seconds)
            if self.leaves:
                number, self.task = self.task.number, None
                return {REPORT: TrialReport(number, (), EndReason.LEFT), WORN_OUT: True}
            self.epoch += 1
            report = report_of(self.task.number, self.epoch, self.known)
            if report.end_reason is not None:
                self.task = None
            return {REPORT: report, WORN_OUT: False}

    def report_of(number: int, epoch: int, known: int) -> TrialReport:
        reason = EndReason.COMPLETED if epoch == NUM_EPOCHS else None
        row = {"epoch": epoch, "val_top1": 0.1 * epoch}
        return TrialReport(number, (row,), reason, {"known_epochs": known})

    return TrainsNothing
