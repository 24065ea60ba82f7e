"""Runs exported models, on a split of an image folder or on single images."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from sgformer.errors import InputError
from sgformer.export.names import FILES
from sgformer.export.packages import check_packages

if TYPE_CHECKING:
    from sgformer.data.image_data import ImageData
    from sgformer.export.comparison import ComparedFile
    from sgformer.export.onnx_classifier import ExportedModel
    from sgformer.training.evaluation import SplitMetrics


ENGINE: Final = "tensorrt"  # needs a GPU


def open_model(model: Path) -> "ExportedModel":
    """Loads an exported file that classifies images; raises DataError if it is none."""
    from sgformer.export.opening import open_exported

    return open_exported(model)


def evaluate_exported(
    model: Path, data_dir: Path, split: str, features: Path | None = None
) -> "tuple[SplitMetrics, tuple[str, ...]]":
    """Metrics of an exported model on a split, with the preprocessing stored in the model.

    Returns:
        The metrics, and what a user should know of the images, a sentence each.

    Raises:
        InputError: The model or the image folder cannot be read, there is no such split, or it is
            not known which images the model was trained with.
    """
    import torch

    from sgformer.data.image_folder import check_split
    from sgformer.export.on_images import logits_on
    from sgformer.training.counts import Counts
    from sgformer.training.evaluation import split_metrics

    check_split(split)
    classifier = open_model(model)
    data, notes = _images_for(classifier, data_dir, split, features)
    samples, num_workers = data.samples(split), classifier.data.num_workers or 0
    counts, labels = Counts(len(classifier.classes), keeps_pairs=True), iter(samples[:, 1])
    for logits in logits_on(classifier, data, samples, num_workers):
        true = torch.tensor(list(islice(labels, len(logits))))
        counts.add(torch.from_numpy(logits), true)
    return split_metrics(counts, classifier.classes), notes


def _images_for(
    classifier: "ExportedModel", data_dir: Path, split: str, features: Path | None = None
) -> "tuple[ImageData, tuple[str, ...]]":
    """The images of a split, prepared as the model asks, with features and notes."""
    from sgformer.data.image_data import decode_folder, with_features
    from sgformer.data.image_folder import read_split_of_training

    columns = classifier.columns
    if columns is None and features is not None:
        raise InputError(f"--features: the model takes images alone; leave {features} out")
    config = classifier.data.model_copy(update={"data_dir": data_dir, "features": features})
    folder, notes = read_split_of_training(
        config, split, classifier.classes, classifier.trained_images
    )
    data = with_features(decode_folder(folder, config), config, columns)
    if columns is not None and features is None:
        notes = (*notes, f"images alone: the model also takes {columns.in_words()} (--features)")
    return data, (*data.notes, *notes)


def compare_formats(
    place: Path, data_dir: Path | None, num_images: int
) -> "tuple[dict[str, ComparedFile], tuple[str, ...]]":
    """Measures a run's exported files and its model in PyTorch, or one exported file.

    Args:
        place: A run's folder, or an exported file.
        data_dir: The images; None: the run's own.
        num_images: How many val images are classified, at most.

    Returns:
        What was measured, by format; and notes, a sentence each.

    Raises:
        InputError: There is no exported file, or the images cannot be read.
    """
    from hpo.delivery.deliver import load_model
    from sgformer.export.comparison import compare_files

    if place.is_file():
        if data_dir is None:
            raise InputError("--data-dir is needed: a file does not say where its images are")
        data, notes = _images_for(open_model(place), data_dir, "val")
        return compare_files({place.name: place}, data, num_images), notes
    run = RunFolder(place)
    if not run.is_delivered:
        raise InputError(f"{place} is no exported file and no run with a delivered model")
    files = {name: run.best / file for name, file in FILES.items() if name != ENGINE}
    files = {name: path for name, path in files.items() if path.exists()}
    check_packages(files)
    own = run.load_config().train.data
    data_dir = data_dir or own.data_dir
    assert data_dir is not None
    data, notes = _images_for(open_model(files["onnx"]), data_dir, "val", own.features)
    checkpoint = ModelFiles(run.best).checkpoint
    model = load_model(checkpoint)[1] if checkpoint.exists() else None
    return compare_files(files, data, num_images, model, checkpoint), notes
