"""Which trials keep checkpoints: running and paused ones, and the best complete ones."""

from pathlib import Path
from typing import Protocol

from sgformer.errors import DiskFullError


class TrialFiles(Protocol):
    """Where the checkpoints of trials are."""

    def size(self, number: int) -> int:
        """The bytes of a trial's checkpoints."""

    def remove(self, number: int) -> None:
        """Removes a trial's checkpoints; its learning curve stays."""

    def remove_previous(self, number: int) -> None:
        """Removes what a trial is resumed from only if its last checkpoint is damaged."""


class TrialFolders:
    """Checkpoints in a folder for each trial, named by the trial's number.

    Args:
        folder: Holds the folders.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, number: int) -> int:
        """The bytes of a trial's checkpoints."""
        paths = (self._folder / str(number)).glob("*.safetensors")
        return sum(path.stat().st_size for path in paths)

    def remove(self, number: int) -> None:
        """Removes a trial's checkpoints; its learning curve stays."""
        for path in (self._folder / str(number)).glob("*.safetensors*"):
            path.unlink(missing_ok=True)

    def remove_previous(self, number: int) -> None:
        """Removes what a trial is resumed from only if its last checkpoint is damaged."""
        (self._folder / str(number) / "previous.safetensors").unlink(missing_ok=True)


class TrialCheckpoints:
    """Removes checkpoints that no trial needs, so that a long study keeps only a few.

    Args:
        place: Where the checkpoints are; a path holds a folder for each trial.
        num_kept: How many of the best complete trials keep their checkpoints.
        maximise: Whether a larger value is better.
        max_bytes: Bytes that all checkpoints may take together; None: all that the disk has.
    """

    def __init__(
        self,
        place: TrialFiles | Path,
        num_kept: int,
        *,
        maximise: bool,
        max_bytes: int | None = None,
    ) -> None:
        self._files = TrialFolders(place) if isinstance(place, Path) else place
        self._num_kept, self._max_bytes = num_kept, max_bytes
        self._sign = 1.0 if maximise else -1.0
        self._kept: dict[int, float] = {}
        self._paused: set[int] = set()
        self._largest_trial = 0

    def trial_paused(self, number: int) -> None:
        """Removes a paused trial's previous checkpoint; the latest one stays, to resume from."""
        self._files.remove_previous(number)
        self._note_size(number)
        self._paused.add(number)

    def trial_resumed(self, number: int) -> None:
        """Counts a trial among the running ones again."""
        self._paused.discard(number)

    def trial_ended(self, number: int, value: float | None) -> None:
        """Removes a trial's checkpoints unless it is one of the best complete trials.

        Args:
            number: The trial's number.
            value: The trial's objective; None: the trial is not complete.
        """
        self._note_size(number)
        self._paused.discard(number)
        if value is None:
            self._files.remove(number)
            return
        self._kept[number] = self._sign * value
        while len(self._kept) > self._num_kept:
            # Among equals the later trial loses its checkpoints: the earlier one is the winner.
            worst = min(self._kept, key=lambda n: (self._kept[n], -n))
            del self._kept[worst]
            self._files.remove(worst)

    def has_room(self, num_running: int, resumed: int | None = None) -> bool:
        """Whether another trial's checkpoints fit beside those of all others.

        Args:
            num_running: How many trials run.
            resumed: Number of the paused trial that is to be resumed; None: a new one starts.

        Raises:
            DiskFullError: They do not fit, and no running or paused trial can make room.
        """
        if self._max_bytes is None:
            return True
        others = (self._kept.keys() | self._paused) - {resumed}
        kept = sum(map(self._files.size, others))
        needed = kept + (num_running + 1) * self._largest_trial
        if needed <= self._max_bytes:
            return True
        if num_running == 0 and not self._paused:
            raise DiskFullError(
                f"another trial's checkpoints do not fit: with those that are kept they would "
                f"take {needed} bytes, and budget.disk_bytes is {self._max_bytes}; raise it, or "
                "lower retrain.top_k"
            )
        return False

    def _note_size(self, number: int) -> None:
        if self._max_bytes is not None:
            self._largest_trial = max(self._largest_trial, self._files.size(number))
