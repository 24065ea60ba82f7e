"""Saves a training's epochs while it goes on, and tells when its caller gets a word."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpo.execution.attempts import Attempts
from hpo.execution.own_folder import TrainingFolder

if TYPE_CHECKING:
    from sgformer.training.trainer import Trainer

# A training gives its caller a word so often within an epoch: when Ray ends a search, it gives a
# worker ten seconds, in which the step under way must end and the training be saved.
SECONDS_OF_A_PART: Final = 2.0
# A checkpoint that is written in this time is told before the next epoch begins.
SECONDS_TO_WAIT: Final = 0.1
# As often, in steps, a group does: all its processes must do so after the same step.
STEPS_OF_A_PART: Final = 20


@dataclass(frozen=True)
class Progress:
    """The report of a training after an epoch.

    Attributes:
        epochs: Rows of EpochMetrics that were not reported before; all rows after a resume.
        end_reason: 'completed', 'early_stopped' or 'diverged'; None: the training goes on.
        facts: Further values for the study: config, device, seconds, memory, diagnosis.
    """

    epochs: tuple[dict[str, Any], ...]
    end_reason: str | None
    facts: dict[str, Any]

    @property
    def last_epoch(self) -> int:
        return int(self.epochs[-1]["epoch"])


class Saver:
    """Saves a training's epochs while the next one is trained, which begins on trust.

    An epoch is told once its checkpoint is durable. Until then the next one does not count.

    Args:
        trainer: The training.
        folder: Gets the checkpoints.
        completed: Adds to an epoch's progress what is found out from its checkpoint.
    """

    def __init__(
        self,
        trainer: "Trainer",
        folder: TrainingFolder,
        completed: Callable[[Progress], Progress] = lambda progress: progress,
    ) -> None:
        from sgformer.optimization.distributed import num_processes, rank
        from sgformer.training.checkpoint import CheckpointWriter

        self._trainer, self._folder, self._completed = trainer, folder, completed
        is_first, is_alone = rank() == 0, num_processes() == 1
        self._writer = CheckpointWriter(folder.path, folder.publish) if is_first else None
        # The processes of a group go on together: the others wait for the first one's write.
        self._patience = SECONDS_TO_WAIT if is_alone else None
        self._seconds_of_a_part = SECONDS_OF_A_PART if is_alone else None
        self._num_saved = trainer.num_epochs_done
        self._due: Progress | None = None  # of the last epoch, which is yet to be told

    def begin_epoch(self, epoch: int) -> None:
        """Notes the attempt at an epoch, which begins, or which has begun on trust."""
        if self._writer is not None:
            steps, only_val = self._trainer.num_steps_resumed, self._trainer.has_only_val_left
            Attempts(self._folder.path).begin(epoch, steps, only_val=only_val)
            self._folder.note_attempt()

    def save(self, progress: Progress) -> None:
        """Begins to save an epoch, and waits for a small checkpoint."""
        self._due, self._num_saved = progress, self._trainer.num_epochs_done
        if self._writer is not None:
            self._writer.begin(self._trainer)
            self._writer.wait(self._patience)

    @property
    def is_saved(self) -> bool:
        """Whether an epoch that is yet to be told is durable."""
        return self._due is not None and (self._writer is None or self._writer.is_done)

    def told(self) -> Generator[Progress | None]:
        """Yields the progress of the last epoch, unless it is told, once it is durable.

        Until then it yields None every few seconds.
        """
        due, self._due = self._due, None
        if due is None:
            return
        while self._writer is not None and not self._writer.wait(self._seconds_of_a_part):
            yield None
        yield self._completed(due)
        if due.end_reason is None:
            self.begin_epoch(due.last_epoch + 1)

    def finish(self) -> None:
        """Saves what is not saved of the epochs that have ended."""
        if self._writer is not None:
            if self._trainer.num_epochs_done > self._num_saved:
                self._writer.begin(self._trainer)
            self._writer.wait()

    def publish(self) -> None:
        """Makes durable what was written to the folder besides the epochs."""
        if self._writer is not None:
            self._folder.publish()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class PartClock:
    """Tells when a training gives its caller a word within an epoch."""

    def __init__(self) -> None:
        self._since, self._num = time.monotonic(), 0

    def is_due(self) -> bool:
        """Is asked after each part; in a group every process gets the same answer."""
        from sgformer.optimization.distributed import num_processes

        self._num += 1
        if num_processes() > 1:
            return self._num % STEPS_OF_A_PART == 0
        if time.monotonic() < self._since + SECONDS_OF_A_PART:
            return False
        self._since = time.monotonic()
        return True
