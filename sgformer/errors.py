"""Errors that a user can cause. Each says what is wrong, the value, and what is allowed."""


class InputError(ValueError):
    """The input is wrong: a setting, a file or a folder. The command line ends with 2."""


class ConfigError(InputError):
    """A setting that is unknown, out of range, or does not fit the others."""


class DataError(InputError):
    """An image folder that cannot be trained on."""


class CheckpointError(InputError):
    """A checkpoint that is damaged, foreign, or of another configuration."""


class ExportError(RuntimeError):
    """An exported model that does not compute what the trained one does."""


class OutOfMemoryError(RuntimeError):
    """A device without the memory for a training.

    Attributes:
        micro_batch_size: Images at a time that do not fit; known in the process that raised it.
    """

    micro_batch_size: int = 1


class DiskFullError(RuntimeError):
    """A disk without room for what must be kept: free some, and go on from there."""
