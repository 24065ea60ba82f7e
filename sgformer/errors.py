"""Errors that a user can cause. Messages say what is wrong, the value, and what is allowed."""

from collections.abc import Iterable
from typing import Final

MOST_NAMES: Final = 5  # how many names, such as those of classes, a message lists at most


class InputError(ValueError):
    """A setting, a file or a folder is wrong. The command line exits with status 2."""


class ConfigError(InputError):
    """A setting is unknown, out of range, or does not go with the others."""


class DataError(InputError):
    """An image folder, or a file, cannot be used as data."""


class CheckpointError(InputError):
    """A checkpoint is damaged, or belongs to another program or another configuration."""


class ExportError(RuntimeError):
    """An exported model's logits differ from those of the trained model."""


class OutOfMemoryError(RuntimeError):
    """A training does not fit into the memory of its device.

    Attributes:
        micro_batch_size: The micro-batch size that did not fit, if a smaller one may. Only the
            process that raised the error knows the number; pickling resets it to None.
    """

    micro_batch_size: int | None = None


class DiskFullError(RuntimeError):
    """A disk is full. The search can be resumed after space is freed."""


def some_of(names: Iterable[str]) -> str:
    """Names in words, such as 'cat, dog and 9998 more'; 'none' without a name."""
    names = list(names)
    more = len(names) - MOST_NAMES
    return (", ".join(names[:MOST_NAMES]) or "none") + (f" and {more} more" if more > 0 else "")
