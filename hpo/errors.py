"""Errors of a search. Those a user can cause are InputErrors: exit code 2; the rest end with 1."""

from sgformer.errors import InputError


class StudyError(InputError):
    """A study or its storage that cannot be used as asked."""


class ClusterError(InputError):
    """A Ray cluster that cannot be reached, or lacks what a trial asks for."""


class RunError(RuntimeError):
    """A run that started and failed."""


class RunInterrupted(RunError):  # noqa: N818  named as Python's KeyboardInterrupt
    """A run that was stopped from outside; it can be continued."""


class BrokenTrainingError(RunError):
    """A training that breaks by what it is: another try would, too."""


class ProcessDiedError(RunError):
    """A process that trained is gone; another may go on from the last checkpoint."""


class WornOutError(RunError):
    """A worker that is to be replaced by a new process."""
