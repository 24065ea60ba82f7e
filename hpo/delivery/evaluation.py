"""Evaluates a checkpoint on val and test where trainings run, with loaders and progress."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.delivery.deliver import images_for, load_model, trained_images_of
from hpo.delivery.evaluated_teacher import evaluated_teacher
from hpo.delivery.forgetting import Forgetting, measure_forgetting
from hpo.delivery.pictures import Pictures, Saliency
from hpo.delivery.predicted import EVAL_BATCH_SIZE, split_batches
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import TrialResources
from hpo.execution.own_folder import TrainingFolder, own_folder
from hpo.execution.retrain import run_on_cluster
from hpo.execution.training import BEST, Training, teachers_in
from hpo.run import Run
from hpo.run_teachers import base_of
from sgformer.config import TrainConfig
from sgformer.data_config import DataConfig

if TYPE_CHECKING:
    import torch

    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData, Samples
    from sgformer.images.decoding import RgbImage
    from sgformer.model.weight_files import StoredWeights
    from sgformer.training.counts import Counts
    from sgformer.training.evaluation import SplitMetrics

SECONDS_BETWEEN_NEWS: Final = 1.0
SPLITS: Final = ("val", "test")


@dataclass(frozen=True)
class Evaluated:
    """How far an evaluation has come.

    Attributes:
        num_done: Number of images evaluated so far.
        num_images: Number of images of all splits.
        metrics: At the end, SplitMetrics by split; None for a split that does not exist.
        pictures: At the end, the content of pictures.json; None: it was not asked for, or failed.
        teacher: At the end, what the model's teacher reaches on val; None: it has none.
        notes: What a user should know of the pictures, a sentence each.
        kept: At the end, the exemplars to keep, by kind; empty: none.
        forgetting: At the end, what an extended model forgets; None: the model is no extension.
    """

    num_done: int
    num_images: int
    metrics: dict[str, Any] | None = None
    pictures: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    kept: "dict[str, Samples]" = field(default_factory=dict)
    forgetting: "Forgetting | None" = None


@dataclass(frozen=True)
class Asked:
    """What an evaluation finds out beside the metrics.

    Attributes:
        has_pictures: Whether the last of what it yields has pictures.
        keep_exemplars: Exemplars of each class that are chosen, at most; 0: none.
        base: A copy of the model that is extended; None: the model is no extension.
        teachers: Checkpoints of the model's teacher, which is evaluated on val, too.
    """

    has_pictures: bool = False
    keep_exemplars: int = 0
    base: "StoredWeights | None" = None
    teachers: tuple[Path, ...] = ()


def evaluate_and_charge(
    run: Run,
    trial: int,
    training: Training,
    observer: SearchObserver,
    images: "ImagesId | None",
    resources: TrialResources | None,
    *,
    keeps_exemplars: bool = True,
) -> Evaluated:
    """The metrics of a trial's checkpoint, with what `report` and `extension` ask for.

    It is evaluated where it was trained; a group's model by one process, with the resources of
    one process of the group.
    The seconds count towards the budget's hours, and no epoch does.

    Args:
        run: The trial's run.
        trial: The trial's number.
        training: The training, whose checkpoint of the best epoch is evaluated.
        observer: Is told of the images evaluated so far.
        images: Identifies the images of the search; None: any images are accepted.
        resources: CPUs and GPUs on the connected Ray cluster; None: this process evaluates.
        keeps_exemplars: Whether to choose the exemplars that `extension` asks for.
    """
    news, places = Evaluated(0, 0), run.config.train.data
    keep = run.config.extension.keep_exemplars if keeps_exemplars else 0
    asked = Asked(run.config.report.images, keep, base_of(run.folder, training.config))
    if resources is None:
        told = _evaluate(replace(training, store=None), images, 0.0, places, asked)
    else:
        arguments = (training, images, resources.gpus, places, asked)
        told = run_on_cluster(_evaluate, arguments, resources, "the evaluation")
    with charged(run, trial, resources):
        for news in told:
            observer.step(news.num_done, news.num_images)
    for note in news.notes:
        observer.note(note)
    return news


@contextlib.contextmanager
def charged(run: Run, trial: int, resources: TrialResources | None) -> Iterator[None]:
    """Charges the block's seconds to the budget's hours; no epoch is charged."""
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    run.study.metadata.add_retraining(trial, 0, seconds, resources.gpus if resources else 1.0)
    run.study.metadata.seconds_searched += seconds


def evaluate_checkpoint(
    checkpoint: Path,
    images: "ImagesId | None" = None,
    num_gpus: float = 0.0,
    places: DataConfig | None = None,
    asked: Asked = Asked(),
) -> Iterator[Evaluated]:
    """Evaluates a checkpoint in this process; the last of what it yields has the metrics.

    Args:
        checkpoint: The weights with their config, which names the images and their size.
        images: Identifies the images of the search; None: any images are accepted.
        num_gpus: GPUs for this process; less than 1: its share of a GPU's memory.
        places: Where the images and their cache are now; None: where the training had them.
        asked: What the last of what it yields has, too.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
    """
    from sgformer.training.device import limit_memory

    limit_memory(num_gpus)
    config, model, _ = load_model(checkpoint, places)
    data = images_for(config, trained_images_of(checkpoint), images)
    told = evaluate_splits(
        config, model, data, has_pictures=asked.has_pictures, teachers=asked.teachers
    )
    for news in told:
        yield news if news.metrics is None else _with_more(news, config, model, data, asked)


def _with_more(
    news: Evaluated, config: TrainConfig, model: Any, data: "ImageData", asked: Asked
) -> Evaluated:
    """The end of an evaluation, with exemplars and forgetting if they are asked for."""
    if asked.keep_exemplars and data.features is None:  # an extension takes images alone
        news = _with_exemplars(news, config, model, data, asked.keep_exemplars)
    if asked.base is not None:
        found = measure_forgetting(config, model, asked.base.path, data)
        news = replace(news, forgetting=found)
    return news


def _with_exemplars(
    news: Evaluated, config: TrainConfig, model: Any, data: "ImageData", number: int
) -> Evaluated:
    """The end of an evaluation with exemplars; a failure costs these only, not the delivery."""
    from sgformer.training.exemplars import choose_exemplars

    device = next(model.parameters()).device
    try:
        return replace(news, kept=choose_exemplars(config, model, data, number, device))
    except Exception as error:  # noqa: BLE001  the note tells it
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        note = f"no exemplars are kept, so `extend` cannot be used: {type(error).__name__}: "
        return replace(news, notes=(*news.notes, f"{note}{reason}"))


def _evaluate(
    training: Training,
    images: "ImagesId | None",
    num_gpus: float,
    places: DataConfig,
    asked: Asked,
) -> Iterator[Evaluated]:
    """Evaluates a training's checkpoint, wherever it is kept; see `evaluate_checkpoint`."""
    with contextlib.ExitStack() as held:
        folder = TrainingFolder(training.folder)
        if training.store is not None:
            folder = held.enter_context(
                own_folder(training.store, training.name, trains=False, names=(BEST,))
            )
        folder.fetch_weights(asked.base)
        asked = replace(asked, base=folder.own_copy(asked.base))
        if asked.base is None:  # an extension's teacher is its base, which knows the old classes
            teachers = tuple(one.path for one in teachers_in(training, folder))
            asked = replace(asked, teachers=teachers)
        yield from evaluate_checkpoint(folder.path / BEST, images, num_gpus, places, asked)


def evaluate_splits(
    config: TrainConfig,
    model: Any,
    data: "ImageData",
    *,
    has_pictures: bool = False,
    teachers: tuple[Path, ...] = (),
) -> Iterator[Evaluated]:
    """Evaluates a model on val and test; the last of what it yields has the metrics.

    They are computed in float32, whatever the precision of the training. A model that takes
    features is judged by images alone and by features alone, too. The pictures are of test, or of
    val if there is no test. Of a teacher nothing but val is asked.
    """
    from sgformer.optimization.numerics import Numerics, exact_float32
    from sgformer.training.counts import Counts
    from sgformer.training.device import choose_device
    from sgformer.training.evaluation import predicted_logits, split_metrics
    from sgformer.training.modalities import ModalityCounts

    # A model that was trained on a cluster's GPU may be delivered by a machine without a GPU.
    anywhere = "cpu" if config.device == "cpu" else "auto"
    device = choose_device(config.model_copy(update={"device": anywhere}))
    model.to(device)
    metrics: dict[str, Any] = dict.fromkeys(SPLITS)
    due = [split for split in SPLITS if split in data.splits]
    num_images = sum(len(data.samples(split)) for split in due)
    num_done, told_at = 0, time.monotonic()
    for split in due:
        counts = Counts(len(data.classes), device, keeps_pairs=True)
        alone, numerics = ModalityCounts(len(data.classes), device), Numerics(device)
        with exact_float32():
            for given, labels in split_batches(config, data, split, device):
                for logits, _ in predicted_logits(model, [(given, labels)], numerics):
                    counts.add(logits, labels)
                alone.add(model, given, labels, numerics)
                num_done += len(labels)
                if time.monotonic() > told_at + SECONDS_BETWEEN_NEWS:
                    told_at = time.monotonic()
                    yield Evaluated(num_done, num_images)
        of_split = split_metrics(counts, data.classes)
        metrics[split] = asdict(of_split) | alone.metrics()
    last = Evaluated(num_images, num_images, metrics)
    if has_pictures:
        saliency = _saliency(config, model, device)
        pictures, notes = _pictures(data, split, counts, of_split, saliency)
        last = replace(last, pictures=pictures, notes=notes)
    if teachers:
        last = replace(last, teacher=evaluated_teacher(teachers, config, data, device))
    yield last


def _pictures(
    data: "ImageData", split: str, counts: "Counts", metrics: "SplitMetrics", saliency: Saliency
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The content of pictures.json, and notes; a failure costs the pictures, not the delivery."""
    try:
        pictures = Pictures(data, split, counts, saliency)
        return pictures.values(metrics.most_confused), pictures.notes()
    except Exception as error:  # noqa: BLE001  the note tells it
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return None, (f"pictures.json is not written: {type(error).__name__}: {reason}",)


def _saliency(config: TrainConfig, model: Any, device: "torch.device") -> Saliency:
    """Colours the crop that the model sees where its probability of a class rests."""
    import torch

    from sgformer.data.augmentation import eval_transform
    from sgformer.data.model_input import ModelInput
    from sgformer.optimization.numerics import Numerics, exact_float32
    from sgformer.training.evaluation import predicted_logits
    from sgformer.training.occlusion import occlusion_map, with_heat

    crop, model_input = eval_transform(config.data), ModelInput(config.data.preprocessing, device)

    def classify(images: "torch.Tensor") -> "torch.Tensor":
        parts = images.split(EVAL_BATCH_SIZE)
        batches = ((model_input.normalised(part), part) for part in parts)
        with exact_float32():
            found = [logits for logits, _ in predicted_logits(model, batches, Numerics(device))]
        return torch.cat(found).softmax(1)

    def draw(image: "RgbImage", label: int) -> "RgbImage":
        seen = crop(image)
        return with_heat(seen.permute(1, 2, 0).numpy(), occlusion_map(classify, seen, label))

    return draw
