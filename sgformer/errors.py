"""Errors that a user can cause. Messages say what is wrong, the value, and what is allowed."""

from collections.abc import Iterable
from typing import Final

MOST_NAMES: Final = 10  # how many names a message lists at most


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """A list of names as text, such as "'cat', 'dog' and 7 more"; 'none' if it is empty.

    Names are quoted, and line breaks in them escaped, so that the text has one line.
    """
    names = list(names)
    shown = ", ".join(map(repr, names[:most]))
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown or "none"


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
