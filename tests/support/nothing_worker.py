"""A worker that reports epochs without training, for tests of what Ray does with workers."""

import json
import time
from pathlib import Path
from typing import Any, Final

from ray import tune

from hpo.execution.worker import (
    GPU,
    REPORT,
    SETTINGS,
    WORN_OUT,
    TrialTask,
    WorkerSettings,
    place_of_gpu,
    trial_folder,
)
from hpo.study.trial import EndReason, TrialReport

NUM_EPOCHS: Final = 3


def trains_nothing(seconds: float = 0.0) -> type[tune.Trainable]:  # noqa: C901  a class in it
    """A worker's class in TrialWorker's place; Ray gets a local class by value.

    Where trials take different shares of a GPU, it writes each epoch to the run's epochs.jsonl:
    trial, share, GPU, begin and end in seconds.

    Args:
        seconds: How long each of a trial's three epochs takes.
    """

    class TrainsNothing(tune.Trainable):
        """Reports epochs without training."""

        def setup(self, config: dict[str, Any]) -> None:
            self.task: TrialTask | None = None
            self.settings: WorkerSettings = config[SETTINGS]
            self.leaves = False
            self.place = {GPU: place_of_gpu()} if self.settings.tells_gpu else {}

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
                return {REPORT: None, WORN_OUT: False, **self.place}
            if self.leaves:
                number, self.task, self.leaves = self.task.number, None, False
                return {REPORT: TrialReport(number, (), EndReason.LEFT), WORN_OUT: False}
            begin = time.monotonic()
            time.sleep(seconds)
            self.epoch += 1
            report = report_of(self.task.number, self.epoch, self.known)
            if self.place:
                note(self.settings.run_dir, [self.task, self.place[GPU], begin, time.monotonic()])
            if report.end_reason is not None:
                self.task = None
            return {REPORT: report, WORN_OUT: False}

    def report_of(number: int, epoch: int, known: int) -> TrialReport:
        reason = EndReason.COMPLETED if epoch == NUM_EPOCHS else None
        row = {"epoch": epoch, "val_top1": 0.1 * epoch}
        return TrialReport(number, (row,), reason, {"known_epochs": known})

    def note(run_dir: Path, epoch: list[Any]) -> None:
        task, *others = epoch
        row = [task.number, task.training.num_gpus, *others]
        with (run_dir / "epochs.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    return TrainsNothing
