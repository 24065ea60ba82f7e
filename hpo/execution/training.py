"""Runs one training in this process, epoch by epoch, resumed from the checkpoint in its folder.

Importing this module is cheap; torch is imported by the first training of a process.
"""

import contextlib
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hpo.errors import StoreError
from hpo.execution.attempts import Attempts, num_begun
from hpo.execution.int8_drop import with_int8_drop
from hpo.execution.news import news_of
from hpo.execution.own_folder import TrainingFolder, own_folder
from hpo.execution.saver import PartClock, Progress, Saver
from hpo.execution.searched_images import open_images
from hpo.run_folder import RunFolder, becomes_true, discard
from hpo.run_store import RunStore
from hpo.run_weights import check_reachable
from hpo.stored_training import saved_epochs
from sgformer import __version__
from sgformer.config import TrainConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data_config import DataConfig
from sgformer.errors import CheckpointError, DiskFullError

BEST: Final = "best.safetensors"

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights
    from sgformer.training.trainer import Trainer


@dataclass(frozen=True)
class Training:
    """The configuration, folder and images of a training.

    Attributes:
        config: The trainer's configuration.
        folder: Gets the checkpoints, epochs.csv, and attempts.csv, the list of epochs begun.
        images: Identifies the images of the search; None: any images are accepted.
        num_gpus: The sum of GPUs over all processes of the training.
        weights: The run's copy of the weights to start from; None: the config asks for none.
        teachers: The run's copies of the teacher's checkpoints.
        micro_batch_size: The micro-batch to begin with where the config's is known not to fit.
        mark: The mark of the run's folder as the driver sees it; None: it is not asked for.
        num_epochs: Epochs that the driver knows of; a checkpoint of fewer is refused.
        store: Where the checkpoints are kept in place of `folder`; None: in `folder`.
        int8_images: On how many val images, at most, `int8_top1_drop` is measured when the
            training has come to its end; None: it is not.
    """

    config: TrainConfig
    folder: Path
    images: ImagesId | None = None
    num_gpus: float = 0.0
    weights: "StoredWeights | None" = None
    teachers: "tuple[StoredWeights, ...]" = ()
    micro_batch_size: int | None = None
    mark: str | None = None
    num_epochs: int = 0
    store: RunStore | None = None
    int8_images: int | None = None

    @property
    def name(self) -> str:
        """The training in its run, such as 'trials/3'."""
        return "/".join(self.folder.parts[-2:])

    @property
    def run_dir(self) -> Path:
        return self.folder.parent.parent

    def with_known_epochs(self) -> Self:
        """The training, of which this process knows the epochs that it sees.

        Raises:
            StoreError: The store is away.
        """
        if self.store is None:
            return replace(self, num_epochs=saved_epochs(self.folder))
        return replace(self, num_epochs=self.store.open(self.name).num_epochs())

    def discard(self) -> None:
        """Deletes what the training has saved, which is no longer needed."""
        if self.store is None:
            discard(self.folder)
        else:
            self.store.discard(self.name)

    def keep_best_alone(self) -> None:
        """Deletes all that an ended training has saved but the weights of its best epoch.

        A store keeps it all: there a checkpoint is one.
        """
        for path in self.folder.glob("*") if self.store is None else ():
            if path.name != BEST:
                path.unlink(missing_ok=True)

    def has_best(self) -> bool:
        """Whether the weights of a best epoch are there.

        Raises:
            StoreError: The store is away.
        """
        if self.store is None:
            return (self.folder / BEST).exists()
        return self.store.open(self.name).num_epochs() > 0

    def num_begun(self) -> int:
        """Epochs begun in all attempts, repeated ones included.

        Raises:
            StoreError: The store is away.
        """
        if self.store is None:
            return Attempts(self.folder).count()
        return num_begun(self.store.open(self.name).attempts())

    def after(self, row: Mapping[str, Any]) -> Self:
        """The training as the driver knows it once it was told the row of an epoch."""
        return replace(self, num_epochs=max(self.num_epochs, int(row["epoch"])))


class Leave(Exception):  # noqa: N818  it is an order, not an error
    """Thrown into a training to save it where it stands, within its epoch, and to end it."""


def leave(training: Generator[Any]) -> None:
    """Saves a training where it stands, and ends it."""
    # Leave comes back from one that has not begun, or has ended. On a full disk, or without its
    # store, the last epoch's checkpoint is what is left.
    with contextlib.suppress(StopIteration, Leave, DiskFullError, StoreError):
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
        StoreError: The store of the checkpoints is away.
    """
    with _folder_of(training) as folder:
        yield from _epochs(training, folder)


@contextlib.contextmanager
def _folder_of(training: Training) -> Iterator[TrainingFolder]:
    """The folder in which this process trains, for the block."""
    from sgformer.optimization.distributed import rank

    is_first, store = rank() == 0, training.store
    if store is not None:
        tell = news_of(training.run_dir).note
        with own_folder(store, training.name, tell, trains=is_first) as folder:
            yield folder
        return
    RunFolder(training.run_dir).check_mark(training.mark)
    with Attempts(training.folder).alone() if is_first else contextlib.nullcontext():
        yield TrainingFolder(training.folder)


def _epochs(training: Training, folder: TrainingFolder) -> Generator[Progress | None]:
    from sgformer.training.device import limit_memory, limit_threads
    from sgformer.training.trainer import Trainer

    limit_threads()
    limit_memory(training.num_gpus)  # of a warm worker, whose last training had another share
    config = training.config.resolved()
    data = open_images(config.data.for_decoding(), training.images, training.run_dir)
    weights = folder.own_copy(training.weights)
    teachers = teachers_in(training, folder)
    trainer = Trainer(config, data, weights, training.micro_batch_size, teachers)
    refused = _resume(trainer, training, folder)
    if not trainer.history:
        folder.fetch_weights(training.weights)
        check_reachable(weights)
    num_told = 0

    def progress() -> Progress:
        nonlocal num_told
        rows = tuple(metrics.as_row() for metrics in trainer.history[num_told:])
        num_told = trainer.num_epochs_done
        news_of(training.run_dir).note(trainer.loading_note)
        facts = _facts(trainer, training, folder, refused)
        return Progress(rows, trainer.end_reason, facts)

    def completed(progress: Progress) -> Progress:
        return with_int8_drop(progress, trainer, folder, training.int8_images)

    if trainer.history:
        # Earlier epochs are reported first, since the scheduler may stop the trial at this epoch.
        yield completed(progress())
    if trainer.end_reason is None:
        yield from _train(trainer, Saver(trainer, folder, completed), folder, progress)


def teachers_in(training: Training, folder: TrainingFolder) -> "list[StoredWeights]":
    """The teacher's checkpoints on this machine; a training needs them whenever it goes on."""
    found = []
    for stored in training.teachers:
        folder.fetch_weights(stored)
        own = folder.own_copy(stored)
        check_reachable(own)
        assert own is not None
        found.append(own)
    return found


def _train(
    trainer: "Trainer", saver: Saver, folder: TrainingFolder, progress: Callable[[], Progress]
) -> Generator[Progress | None]:
    """Trains to the end; saves each epoch, and the one under way when it is left within it."""
    from sgformer.training.checkpoint import save_within_epoch

    clock = PartClock()
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
        yield from saver.told()
    except Leave:
        saver.finish()
        if trainer.num_steps_done:
            save_within_epoch(trainer, folder.path)
            saver.publish()
    except Exception:
        yield from saver.told()  # it is durable, and the epoch that broke was begun
        raise
    finally:
        saver.close()


def _resume(trainer: "Trainer", training: Training, folder: TrainingFolder) -> tuple[str, ...]:
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
        refused = resume_progress(trainer, folder.path)
        return trainer.num_epochs_done >= expected or bool(refused)

    def place() -> tuple[int, int]:
        return trainer.num_epochs_done, trainer.num_steps_resumed

    steps = ""
    # A store shows at once what is there.
    seconds = None if folder.stored is None else 0.0
    if becomes_true(load, seconds):
        expected, step = map(broadcast, place())  # where all processes of a group go on
        if place() < (expected, step):
            becomes_true(lambda: load() and place() >= (expected, step), seconds)
        if place() == (expected, step):
            return refused
        steps = f", {step} steps on (here {trainer.num_steps_resumed})"
    raise CheckpointError(
        f"the checkpoint in {folder.where} on {socket.gethostname()} is of epoch "
        f"{trainer.num_epochs_done} and not of {expected}{steps}; the training does not start "
        f"over, as its curve would be of two trainings: {folder.what_nodes_share}; if the file is "
        "lost, a finalist starts over once its folder is removed, and a trial as a new one "
        "(study.enqueue)"
    )


def warm_up(data: DataConfig, images: ImagesId | None, run_dir: Path | None) -> None:
    """Imports torch and the trainer and opens the images: seconds, once for each process."""
    import sgformer.training.trainer  # noqa: F401  imports torch and timm

    with contextlib.suppress(Exception):  # the first training will raise the error
        open_images(data.for_decoding(), images, run_dir)


def _facts(
    trainer: "Trainer", training: Training, folder: TrainingFolder, refused: tuple[str, ...]
) -> dict[str, Any]:
    from sgformer.training.device import gpu_name, gpu_number
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
        "num_epochs_trained": Attempts(folder.path).count(),
        "peak_memory_bytes": max(metrics.peak_memory_bytes for metrics in trainer.history),
        "images_per_second": last.images_per_second,
        "micro_batch_size": trainer.micro_batches.size,
        "best_epoch": trainer.early_stopping.best_epoch,
        "checkpoint": folder.best,
        "diagnosis": [asdict(finding) for finding in findings],
    }
    optional: dict[str, Any] = {"gpu_number": gpu_number(trainer.device)}
    optional |= {"compiled": trainer.is_compiled, "weights": trainer.weights_loaded}
    optional["refused_checkpoints"] = list(refused) or None
    return facts | {name: value for name, value in optional.items() if value is not None}
