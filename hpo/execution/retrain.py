"""Runs the full-length trainings on fresh seeds, with the trainer of the trials."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from typing import Any, TypeVar

from hpo.errors import BrokenTrainingError, RunError
from hpo.execution.cluster import TrialResources
from hpo.execution.group_training import run_group_training
from hpo.execution.training import Training, run_training
from sgformer.errors import DiskFullError, InputError

Yielded = TypeVar("Yielded")
# A training sends rows of EpochMetrics, then None at its end, or the error that ended it.
Said = dict[str, Any] | BrokenTrainingError | None
# The index of a training with its message, or with an error that ends all trainings.
Told = tuple[int, Said | Exception]


def retrain_epochs(training: Training) -> Iterator[dict[str, Any]]:
    """Trains in this process, from the checkpoint in the folder, if any; yields epoch rows."""
    training.folder.mkdir(parents=True, exist_ok=True)
    for progress in run_training(training):
        for row in progress.epochs:  # noqa: UP028  Ray calls send(), which a tuple's iterator lacks
            yield row


def retrain_epochs_on_cluster(
    training: Training, resources: TrialResources
) -> Iterator[dict[str, Any]]:
    """Trains on the connected Ray, with the resources of a trial; yields the row of each epoch.

    Raises:
        BrokenTrainingError: The training raised an exception.
        RunError: A process of the training, or Ray, died.
        InputError: The images, or the checkpoints in the folder, cannot be used, or are not seen.
        DiskFullError: The disk has no room for a checkpoint.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    if resources.group is not None:
        for progress in run_group_training(training, resources.group):
            yield from progress.epochs
        return
    yield from run_on_cluster(retrain_epochs, (training,), resources, "the retraining")


def run_on_cluster(
    work: Callable[..., Iterator[Yielded]],
    arguments: tuple[Any, ...],
    resources: TrialResources,
    what: str,
) -> Iterator[Yielded]:
    """Runs a generator function on the connected Ray, with the resources of one process.

    Args:
        work: The generator function; what it yields is yielded here.
        arguments: Its arguments.
        resources: Tells the CPUs and GPUs of the process.
        what: What the function does, in messages, such as 'the retraining'.

    Raises:
        BrokenTrainingError: The function raised an exception.
        RunError: Its process, or Ray, died.
        InputError: The function raised it.
        DiskFullError: The function raised it.
    """
    import ray

    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(work)
    references: Any = task.remote(*arguments)  # Ray's generator of object references
    try:
        for reference in references:
            yielded: Yielded = ray.get(reference)
            yield yielded
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, (InputError, DiskFullError)):
            raise cause from error
        reason = str(cause).strip().splitlines()[0]
        text = f"{what} broke on the cluster: {reason}"
        if isinstance(error, ray.exceptions.RayTaskError):
            raise BrokenTrainingError(text) from error
        raise RunError(f"{text}; --resume retries") from error


def retrain_all_on_cluster(
    trainings: Sequence[Training], resources: TrialResources, max_retries: int
) -> Iterator[tuple[int, Said]]:
    """Runs several trainings on the connected Ray, as many at a time as there are slots.

    Yields:
        The training's index with the row of its next epoch, with None at its end, or with the
        error of its last try if it failed more than `max_retries` times. A repeated training
        yields its epochs again.

    Raises:
        RunError: The processes of a training, or Ray, died more than `max_retries` times.
    """
    waiting: Queue[int] = Queue()
    told: Queue[Told] = Queue()
    is_over = threading.Event()
    for i in range(len(trainings)):
        waiting.put(i)

    def work() -> None:
        with contextlib.suppress(Empty):
            while not is_over.is_set():
                i = waiting.get_nowait()
                _tell_all(i, _with_retries(trainings[i], resources, max_retries, is_over), told)

    for _ in range(min(resources.num_slots, len(trainings))):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield from _as_told(told, len(trainings))
    finally:
        is_over.set()


def _as_told(told: "Queue[Told]", num_left: int) -> Iterator[tuple[int, Said]]:
    while num_left:
        i, said = told.get()
        if isinstance(said, Exception) and not isinstance(said, BrokenTrainingError):
            raise said
        num_left -= not isinstance(said, dict)
        yield i, said


def _tell_all(i: int, rows: Iterator[dict[str, Any]], told: "Queue[Told]") -> None:
    try:
        for row in rows:
            told.put((i, row))
        told.put((i, None))
    except Exception as error:  # noqa: BLE001  _as_told raises or yields it
        told.put((i, error))


def _with_retries(
    training: Training, resources: TrialResources, max_retries: int, is_over: threading.Event
) -> Iterator[dict[str, Any]]:
    for num_left in range(max_retries, -1, -1):
        try:
            for row in retrain_epochs_on_cluster(training, resources):
                training = training.after(row)
                yield row
        except RunError:
            # After the end Ray is shut down, and another try would start a new Ray.
            if not num_left or is_over.is_set():
                raise
        else:
            return
