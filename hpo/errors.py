"""Errors of a search. InputErrors, which users can cause, exit with code 2, all others with 1."""

from sgformer.errors import InputError


class StudyError(InputError):
    """A study or its storage cannot be used as requested."""


class ClusterError(InputError):
    """A Ray cluster cannot be reached or may not be used, or lacks CPUs or GPUs of a trial."""


class RunError(RuntimeError):
    """A run failed after it had started."""


class RunInterrupted(RunError):  # noqa: N818  named as Python's KeyboardInterrupt
    """A signal stopped a run, which can be resumed."""


class BrokenTrainingError(RunError):
    """A training failed for a reason that another attempt would meet again."""


class ProcessDiedError(RunError):
    """A training process died; another process can continue from the last checkpoint."""


class WornOutError(RunError):
    """A worker ends itself so that Ray replaces it by a new process."""


class StoreError(RuntimeError):
    """The store of checkpoints cannot be used for the time being. The search can be resumed."""
