"""Runs the full-length trainings on fresh seeds, with the trainer of the trials."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import Empty, Queue
from typing import Any, Final, TypeVar

from hpo.errors import BrokenTrainingError, RunError, StoreError
from hpo.execution.cluster import TrialResources
from hpo.execution.group_training import run_group_training
from hpo.execution.interruption import noting_interruption
from hpo.execution.placement import PlacementWatch
from hpo.execution.training import Training, leave, run_training
from sgformer.errors import DiskFullError, InputError

Yielded = TypeVar("Yielded")
SECONDS_BETWEEN_LOOKS: Final = 1.0
SECONDS_TO_SAVE: Final = 10.0  # after a signal, as long as Ray Tune gives a worker
# A training sends rows of EpochMetrics, then None at its end, or the error that ended it.
Said = dict[str, Any] | BrokenTrainingError | None
# The index of a training with its message, or with an error that ends all trainings.
Told = tuple[int, Said | Exception]


def retrain_epochs(training: Training) -> Iterator[dict[str, Any]]:
    """Trains in this process, from the checkpoint in the folder, if any; yields epoch rows.

    Raises:
        KeyboardInterrupt: A signal arrived, or Ray cancels the task that runs this; the training
            is saved within its epoch.
    """
    if training.store is None:
        training.folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.closing(run_training(training)) as epochs,
        noting_interruption() as is_interrupted,
    ):
        for progress in epochs:
            for row in () if progress is None else progress.epochs:  # noqa: UP028  Ray calls send()
                yield row
            if is_interrupted():
                leave(epochs)
                raise KeyboardInterrupt


def retrain_epochs_on_cluster(
    training: Training,
    resources: TrialResources,
    is_over: threading.Event | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """Trains on the connected Ray, with the resources of a trial; yields the row of each epoch.

    If `is_over` is set, or a signal arrives, the training is saved within its epoch, and ends.
    `on_start` is called when Ray has placed and started its process, or its group's.

    Raises:
        BrokenTrainingError: The training raised an exception.
        RunError: A process of the training, or Ray, died.
        InputError: The images, or the checkpoints in the folder, cannot be used, or are not seen.
        DiskFullError: The disk has no room for a checkpoint.
        StoreError: The store of the checkpoints is away.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    is_over = is_over or threading.Event()
    if resources.group is not None:
        epochs = run_group_training(training, resources.group, on_start)
        with contextlib.closing(epochs):
            for progress in epochs:
                if is_over.is_set():
                    return
                if progress is not None:
                    yield from progress.epochs
        return
    yield from run_on_cluster(
        retrain_epochs, (training,), resources, "the retraining", is_over, on_start
    )


def run_on_cluster(
    work: Callable[..., Iterator[Yielded]],
    arguments: tuple[Any, ...],
    resources: TrialResources,
    what: str,
    is_over: threading.Event | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Iterator[Yielded]:
    """Runs a generator function on the connected Ray, with the resources of one process.

    Args:
        work: The generator function; what it yields is yielded here.
        arguments: Its arguments.
        resources: Tells the CPUs and GPUs of the process.
        what: What the function does, in messages, such as 'the retraining'.
        is_over: Ends the function once it is set.
        on_start: Is called when the function has started.

    Raises:
        BrokenTrainingError: The function raised an exception.
        RunError: Its process, or Ray, died.
        InputError: The function raised it.
        DiskFullError: The function raised it; so with StoreError.
    """
    import ray

    remote: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)
    task = remote(_saying_that_it_starts)
    said = _yielded(task.remote(work, arguments), is_over or threading.Event())
    try:
        with contextlib.closing(said):
            for _ in itertools.islice(said, 1):
                on_start()
            yield from said
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, (InputError, DiskFullError, StoreError)):
            raise cause from error
        reason = str(cause).strip().splitlines()[0]
        text = f"{what} broke on the cluster: {reason}"
        if isinstance(error, ray.exceptions.RayTaskError):
            raise BrokenTrainingError(text) from error
        raise RunError(f"{text}; --resume retries") from error


def _saying_that_it_starts(
    work: Callable[..., Iterator[Yielded]], arguments: tuple[Any, ...]
) -> Iterator[Yielded | None]:
    yield None
    yield from work(*arguments)


def _yielded(references: Any, is_over: threading.Event) -> Generator[Any]:
    """What a task yields, by Ray's generator of the references; the task is ended with this."""
    import ray

    has_ended = False
    try:
        while not is_over.is_set():
            if ray.wait([references], timeout=SECONDS_BETWEEN_LOOKS)[0]:
                yield ray.get(next(references))
    except StopIteration:
        has_ended = True
    finally:
        if not has_ended and ray.is_initialized():
            ray.cancel(references)
            ray.wait([references.completed()], timeout=SECONDS_TO_SAVE)


def retrain_all_on_cluster(
    trainings: Sequence[Training],
    resources: Sequence[TrialResources],
    max_retries: int,
    watch: PlacementWatch,
    most: int | None = None,
) -> Iterator[tuple[int, Said]]:
    """Runs several trainings on the connected Ray, as many at a time as Ray can place.

    Args:
        trainings: What is trained.
        resources: CPUs, GPUs and processes of each training.
        max_retries: How often a training whose processes died is tried again.
        watch: Is told whether any training runs.
        most: The most trainings at a time; None: as many as fit.

    Yields:
        The training's index with the row of its next epoch, with None at its end, or with the
        error of its last try if it failed more than `max_retries` times. A repeated training
        yields its epochs again.

    Raises:
        RunError: The processes of a training, or Ray, died more than `max_retries` times; or Ray
            could place no training for as long as `watch` allows.
    """
    waiting: Queue[int] = Queue()
    told: Queue[Told] = Queue()
    is_over = threading.Event()
    started = [threading.Event() for _ in trainings]
    for i in range(len(trainings)):
        waiting.put(i)
    # Ray lets those wait that do not fit, and starts them where room appears.
    num_at_a_time = min(most or len(trainings), len(trainings))

    def work() -> None:
        with contextlib.suppress(Empty):
            while not is_over.is_set():
                i = waiting.get_nowait()
                rows = _with_retries(trainings[i], resources[i], max_retries, is_over, started[i])
                _tell_all(i, rows, told)
                started[i].clear()

    with _in_threads(work, num_at_a_time, is_over):
        yield from _as_told(told, len(trainings), watch, started)


@contextlib.contextmanager
def _in_threads(work: Callable[[], None], number: int, is_over: threading.Event) -> Iterator[None]:
    """Runs `work` in each of some threads; the block's end sets `is_over` and waits for them."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        end = time.monotonic() + SECONDS_TO_SAVE
        for thread in threads:  # each lets its training save itself
            thread.join(max(0.0, end - time.monotonic()))


def _as_told(
    told: "Queue[Told]", num_left: int, watch: PlacementWatch, started: Sequence[threading.Event]
) -> Iterator[tuple[int, Said]]:
    while num_left:
        out_of_time = watch.look(any(one.is_set() for one in started))
        if out_of_time is not None:
            raise out_of_time
        try:
            i, said = told.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            continue
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
    training: Training,
    resources: TrialResources,
    max_retries: int,
    is_over: threading.Event,
    started: threading.Event,
) -> Iterator[dict[str, Any]]:
    num_left = max_retries
    while True:
        try:
            for row in retrain_epochs_on_cluster(training, resources, is_over, started.set):
                if int(row["epoch"]) > training.num_epochs:  # no tries are counted before it
                    num_left = max_retries
                training = training.after(row)
                yield row
        except RunError:
            started.clear()
            # After the end Ray is shut down, and another try would start a new Ray.
            if not num_left or is_over.is_set():
                raise
            num_left -= 1
        else:
            return
