"""Runs one training in this process, epoch by epoch, resumed from the checkpoint in its folder.

Importing this module is cheap; torch is imported by the first training of a process.
"""

import contextlib
import csv
import socket
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hpo.execution.attempts import Attempts
from hpo.execution.searched_images import news_of, open_images
from hpo.run_folder import RunFolder, becomes_true
from hpo.run_weights import check_reachable
from sgformer import __version__
from sgformer.config import TrainConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data_config import DataConfig
from sgformer.errors import CheckpointError, DiskFullError

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
        mark: The mark of the run's folder as the driver sees it; None: it is not asked for.
        num_epochs: Epochs that the driver knows of; a checkpoint of fewer is refused.
    """

    config: TrainConfig
    folder: Path
    images: ImagesId | None = None
    num_gpus: float = 0.0
    weights: "StoredWeights | None" = None
    micro_batch_size: int | None = None
    mark: str | None = None
    num_epochs: int = 0

    def after(self, row: Mapping[str, Any]) -> Self:
        """The training as the driver knows it once it was told the row of an epoch."""
        return replace(self, num_epochs=max(self.num_epochs, int(row["epoch"])))


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
        ClusterError: This machine does not see the run's folder.
        CheckpointError: It does not see the checkpoint of an epoch that the driver knows of.
        RunError: Another process trains in the folder.
        InputError: The images, the config or the checkpoints cannot be used.
        OutOfMemoryError: Not even the smallest micro-batch fits into memory.
        DiskFullError: The disk has no room for a checkpoint.
    """
    from sgformer.optimization.distributed import rank

    RunFolder(training.folder.parent.parent).check_mark(training.mark)
    attempts = Attempts(training.folder)
    with attempts.alone() if rank() == 0 else contextlib.nullcontext():
        yield from _epochs(training, attempts)


def _epochs(training: Training, attempts: Attempts) -> Generator[Progress | None]:
    from sgformer.training.device import limit_memory, limit_threads
    from sgformer.training.trainer import Trainer

    limit_threads()
    limit_memory(training.num_gpus)  # of a warm worker, whose last training had another share
    config = training.config.resolved()
    run_dir = training.folder.parent.parent
    data = open_images(config.data.for_decoding(), training.images, run_dir)
    trainer = Trainer(config, data, training.weights, training.micro_batch_size)
    refused = _resume(trainer, training)
    if not trainer.history:
        check_reachable(training.weights)
    num_told = 0

    def progress() -> Progress:
        nonlocal num_told
        rows = tuple(metrics.as_row() for metrics in trainer.history[num_told:])
        num_told = trainer.num_epochs_done
        news_of(run_dir).note(trainer.loading_note)
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
    except Exception:
        yield from saver.told()  # it is durable, and the epoch that broke was begun
        raise
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
            steps, only_val = self._trainer.num_steps_resumed, self._trainer.has_only_val_left
            self._attempts.begin(epoch, steps, only_val=only_val)

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


def _resume(trainer: "Trainer", training: Training) -> tuple[str, ...]:
    """Resumes from the folder's last checkpoint, if it is of no earlier epoch than it should be.

    Returns:
        For each newer checkpoint that could not be used, a line that says why. Its predecessor,
        an epoch earlier, is of the same training, so this is no reason to refuse that one.
    """
    from sgformer.optimization.distributed import broadcast
    from sgformer.training.checkpoint import resume_progress

    expected, refused = training.num_epochs, tuple[str, ...]()

    def load() -> bool:
        nonlocal refused
        refused = resume_progress(trainer, training.folder)
        return trainer.num_epochs_done >= expected or bool(refused)

    def place() -> tuple[int, int]:
        return trainer.num_epochs_done, trainer.num_steps_resumed

    steps = ""
    if becomes_true(load):
        expected, step = map(broadcast, place())  # where all processes of a group go on
        if place() < (expected, step):
            becomes_true(lambda: load() and place() >= (expected, step))
        if place() == (expected, step):
            return refused
        steps = f", {step} steps on (here {trainer.num_steps_resumed})"
    raise CheckpointError(
        f"the checkpoint in {training.folder} on {socket.gethostname()} is of epoch "
        f"{trainer.num_epochs_done} and not of {expected}{steps}; the training does not start "
        "over, as its curve would be of two trainings: all nodes must share the run folder "
        "(--output-dir); if the file is lost, a finalist starts over once its folder is removed, "
        "and a trial as a new one (study.enqueue)"
    )


def saved_epochs(folder: Path) -> int:
    """The epochs of a training whose checkpoints this process sees in the folder."""
    try:
        text = (folder / "epochs.csv").read_text(encoding="utf-8")
    except OSError:
        return 0
    return len(list(csv.DictReader(text.splitlines())))


def warm_up(data: DataConfig, images: ImagesId | None, run_dir: Path | None) -> None:
    """Imports torch and the trainer and opens the images: seconds, once for each process."""
    import sgformer.training.trainer  # noqa: F401  imports torch and timm

    with contextlib.suppress(Exception):  # the first training will raise the error
        open_images(data.for_decoding(), images, run_dir)


def _facts(
    trainer: "Trainer", training: Training, num_attempts: int, refused: tuple[str, ...]
) -> dict[str, Any]:
    from sgformer.training.device import gpu_name
    from sgformer.training.diagnosis import diagnose

    config, last, num_classes = trainer.config, trainer.history[-1], len(trainer.data.classes)
    findings = diagnose(
        trainer.history,
        config,
        num_classes,
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
        "micro_batch_size": trainer.micro_batches.size,
        "best_epoch": trainer.early_stopping.best_epoch,
        "checkpoint": str(training.folder / "best.safetensors"),
        "diagnosis": [asdict(finding) for finding in findings],
    }
    optional: dict[str, Any] = {"compiled": trainer.is_compiled, "weights": trainer.weights_loaded}
    optional["refused_checkpoints"] = list(refused) or None
    return facts | {name: value for name, value in optional.items() if value is not None}
