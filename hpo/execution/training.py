"""Runs one training in this process, epoch by epoch, resumed from the checkpoint in its folder.

Importing this module is cheap; torch is imported by the first training of a process.
"""

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.errors import RunError
from hpo.execution.attempts import Attempts
from hpo.run_weights import check_reachable
from sgformer import __version__
from sgformer.catalog import model_facts
from sgformer.config import DataConfig, TrainConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import DiskFullError

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights
    from sgformer.training.trainer import Trainer

# A training gives its caller a word so often within an epoch: when Ray ends a search, it gives a
# worker ten seconds, in which the step under way must end and the training be saved.
SECONDS_OF_A_PART: Final = 2.0
# A checkpoint that is written in this time is told before the next epoch begins.
SECONDS_TO_WAIT: Final = 0.1
# As often, in steps, a group does: all its processes must do so after the same step.
STEPS_OF_A_PART: Final = 20
# The settings on which the memory of a training depends most.
MEMORY_SETTINGS: Final = ("precision", "grad_checkpointing", "freeze", "ema_decay")


@dataclass(frozen=True)
class Training:
    """The configuration, folder and images of a training.

    Attributes:
        config: The trainer's configuration.
        folder: Gets the checkpoints, epochs.csv, and attempts.csv, the list of epochs begun.
        images: Identifies the images of the search; None: any images are accepted.
        num_gpus: The sum of GPUs over all processes of the training.
        weights: The run's copy of the weights to start from; None: the config asks for none.
        micro_batch_size: The micro-batch to begin with where the config's is known not to fit.
    """

    config: TrainConfig
    folder: Path
    images: ImagesId | None = None
    num_gpus: float = 0.0
    weights: "StoredWeights | None" = None
    micro_batch_size: int | None = None


class KnownMicroBatches:
    """The last micro-batch of each architecture whose training ran out of memory.

    Each worker process keeps its own: whether a micro-batch fits depends on the GPU, and on what
    else runs there. A model with BatchNorm, whose result depends on the micro-batches, has none:
    the result would depend on what the worker has trained before.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[Any, ...], int] = {}

    def apply_to(self, training: Training) -> Training:
        """The training, which begins with the micro-batch known for its architecture, if any."""
        known = self._sizes.get(_architecture(training.config))
        return training if known is None else replace(training, micro_batch_size=known)

    def note(self, config: TrainConfig, size: int) -> None:
        """Notes the micro-batch of a training that may have run out of memory."""
        asked = config.optimizer.micro_batch_size or config.optimizer.batch_size
        if size < asked and not model_facts(config.model.name).has_batch_norm:
            self._sizes[_architecture(config)] = size


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


class Leave(Exception):  # noqa: N818  it is an order, not an error
    """Thrown into a training to save it where it stands, within its epoch, and to end it."""


def leave(training: Generator[Any]) -> None:
    """Saves a training where it stands, and ends it."""
    # Leave comes back from one that has not begun, or has ended. On a full disk the last epoch's
    # checkpoint is what is left.
    with contextlib.suppress(StopIteration, Leave, DiskFullError):
        training.throw(Leave())
    training.close()


def run_training(training: Training) -> Generator[Progress | None]:
    """Trains, and yields after each epoch, whose checkpoint is saved before it is reported.

    Every few seconds within an epoch it yields None; then `leave` may end it. A resumed training
    first reports the epochs trained earlier, in a step without training. If processes of
    torch.distributed train together, each calls this function, and rank 0 saves.

    Raises:
        RunError: The run folder does not exist here, or another process trains in the folder.
        InputError: The images, the config or the checkpoints cannot be used.
        OutOfMemoryError: Not even the smallest micro-batch fits into memory.
        DiskFullError: The disk has no room for a checkpoint.
    """
    from sgformer.optimization.distributed import rank

    run_dir = training.folder.parent.parent
    if not run_dir.is_dir():
        raise RunError(
            f"the run folder {run_dir} is not there on {socket.gethostname()}: it must be shared "
            "by all nodes (--output-dir)"
        )
    attempts = Attempts(training.folder)
    with attempts.alone() if rank() == 0 else contextlib.nullcontext():
        yield from _epochs(training, attempts)


def _epochs(training: Training, attempts: Attempts) -> Generator[Progress | None]:
    from sgformer.training.checkpoint import resume_progress
    from sgformer.training.device import limit_memory
    from sgformer.training.trainer import Trainer

    limit_memory(training.num_gpus)  # of a warm worker, whose last training had another share
    config = training.config.resolved()
    data = open_images(config.data, training.images)
    trainer = Trainer(config, data, training.weights, training.micro_batch_size)
    refused = resume_progress(trainer, training.folder)
    if not trainer.history:
        check_reachable(training.weights)
    num_told = 0

    def progress() -> Progress:
        nonlocal num_told
        rows = tuple(metrics.as_row() for metrics in trainer.history[num_told:])
        num_told = trainer.num_epochs_done
        facts = _facts(trainer, training, attempts.count(), refused)
        return Progress(rows, trainer.end_reason, facts)

    if trainer.history:
        # Earlier epochs are reported first, since the scheduler may stop the trial at this epoch.
        yield progress()
    if trainer.end_reason is None:
        yield from _train(trainer, training.folder, attempts, progress)


def _train(
    trainer: "Trainer", folder: Path, attempts: Attempts, progress: Callable[[], Progress]
) -> Generator[Progress | None]:
    """Trains to the end; saves each epoch, and the one under way when it is left within it."""
    from sgformer.training.checkpoint import save_within_epoch

    saver, clock = _Saver(trainer, folder, attempts), _PartClock()
    try:
        saver.begin_epoch(trainer.num_epochs_done + 1)
        for metrics in trainer.parts():
            if metrics is not None:
                yield from saver.told()  # where an epoch is shorter than its checkpoint's write
                saver.save(progress())
            if saver.is_saved:
                yield from saver.told()
            elif clock.is_due():
                yield None
    except Leave:
        saver.finish()
        if trainer.num_steps_done:
            save_within_epoch(trainer, folder)
    finally:
        saver.close()


class _Saver:
    """Saves a training's epochs while the next one is trained, which begins on trust.

    An epoch is told once its checkpoint is durable. Until then the next one does not count.
    """

    def __init__(self, trainer: "Trainer", folder: Path, attempts: Attempts) -> None:
        from sgformer.optimization.distributed import num_processes, rank
        from sgformer.training.checkpoint import CheckpointWriter

        self._trainer, self._attempts = trainer, attempts
        self._writer = CheckpointWriter(folder) if rank() == 0 else None
        # The processes of a group go on together: the others wait for the first one's write.
        self._patience = SECONDS_TO_WAIT if num_processes() == 1 else None
        self._num_saved = trainer.num_epochs_done
        self._due: Progress | None = None  # of the last epoch, which is yet to be told

    def begin_epoch(self, epoch: int) -> None:
        """Notes the attempt at an epoch, which begins, or which has begun on trust."""
        if self._writer is not None:
            self._attempts.begin(epoch, self._trainer.num_steps_resumed)

    def save(self, progress: Progress) -> None:
        """Begins to save an epoch; waits for a small checkpoint, and for the last epoch's."""
        self._due, self._num_saved = progress, self._trainer.num_epochs_done
        if self._writer is not None:
            self._writer.begin(self._trainer)
            self._writer.wait(None if progress.end_reason is not None else self._patience)

    @property
    def is_saved(self) -> bool:
        """Whether an epoch that is yet to be told is durable."""
        return self._due is not None and (self._writer is None or self._writer.is_done)

    def told(self) -> Generator[Progress]:
        """Yields the progress of the last epoch, unless it is told, once it is durable."""
        due, self._due = self._due, None
        if due is None:
            return
        if self._writer is not None:
            self._writer.wait()
        yield due
        if due.end_reason is None:
            self.begin_epoch(due.last_epoch + 1)

    def finish(self) -> None:
        """Saves what is not saved of the epochs that have ended."""
        if self._writer is not None:
            if self._trainer.num_epochs_done > self._num_saved:
                self._writer.begin(self._trainer)
            self._writer.wait()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _PartClock:
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


def warm_up(data: DataConfig, images: ImagesId | None) -> None:
    """Imports torch and the trainer and opens the images: seconds, once for each process."""
    import sgformer.training.trainer  # noqa: F401  imports torch and timm

    with contextlib.suppress(Exception):  # the first training will raise the error
        open_images(data, images)


@functools.lru_cache(maxsize=4)
def open_images(config: DataConfig, images: ImagesId | None) -> ImageData:
    """The images as memory-mapped files, kept open for later trainings of this process.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
    """
    return load_image_data(config, expected=images)


def _facts(
    trainer: "Trainer", training: Training, num_attempts: int, refused: tuple[str, ...]
) -> dict[str, Any]:
    from sgformer.training.device import gpu_name
    from sgformer.training.diagnosis import diagnose

    config, last = trainer.config, trainer.history[-1]
    findings = diagnose(
        trainer.history,
        config,
        len(trainer.data.classes),
        trainer.end_reason,
        has_gpu=trainer.device.type == "cuda",
        statistics=trainer.statistics_images,
    )
    seconds = sum(metrics.seconds for metrics in trainer.history)
    facts = {
        "config": config.model_dump(mode="json"),
        "config_fingerprint": trainer.fingerprint,
        "num_parameters": trainer.num_parameters,
        "hostname": socket.gethostname(),
        "device": str(trainer.device),
        "gpu": gpu_name(trainer.device),
        "precision": trainer.numerics.precision,
        "channels_last": trainer.numerics.channels_last,
        "seed": config.seed,
        "code_version": __version__,
        "seconds": seconds,
        "gpu_seconds": seconds * training.num_gpus,
        "num_epochs_trained": num_attempts,
        "peak_memory_bytes": max(metrics.peak_memory_bytes for metrics in trainer.history),
        "images_per_second": last.images_per_second,
        "micro_batch_size": trainer.micro_batch_size,
        "best_epoch": trainer.early_stopping.best_epoch,
        "checkpoint": str(training.folder / "best.safetensors"),
        "diagnosis": [asdict(finding) for finding in findings],
    }
    if trainer.is_compiled is not None:
        facts["compiled"] = trainer.is_compiled
    if trainer.weights_loaded is not None:
        facts["weights"] = trainer.weights_loaded
    return facts | ({"refused_checkpoints": list(refused)} if refused else {})


def _architecture(config: TrainConfig) -> tuple[Any, ...]:
    others = (getattr(config, name) for name in MEMORY_SETTINGS)
    return (config.model.name, config.data.image_size, config.optimizer.batch_size, *others)
