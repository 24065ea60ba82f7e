"""Runs exported models, on a split of an image folder or on single images."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import ExportedModel, OnnxClassifier
    from sgformer.training.evaluation import SplitMetrics


def load_classifier(model: Path) -> "OnnxClassifier":
    """Loads an exported model of normalised images; raises DataError if the file is none."""
    from sgformer.export.opening import open_normalised

    return open_normalised(model)


def open_model(model: Path) -> "ExportedModel":
    """Loads an exported file that classifies images; raises DataError if it is none."""
    from sgformer.export.opening import open_exported

    return open_exported(model)


def evaluate_onnx(
    model: Path, data_dir: Path, split: str
) -> "tuple[SplitMetrics, tuple[str, ...]]":
    """Metrics of an exported model on a split, with the preprocessing stored in the model.

    Returns:
        The metrics, and what a user should know of the images, a sentence each.

    Raises:
        InputError: The model or the image folder cannot be read, there is no such split, or it is
            not known which images the model was trained with.
    """
    import torch

    from sgformer.data.image_data import decode_folder
    from sgformer.data.image_folder import check_split, read_split_of_training
    from sgformer.data.model_input import eval_batches
    from sgformer.training.counts import Counts
    from sgformer.training.evaluation import split_metrics

    check_split(split)
    classifier = load_classifier(model)
    config = classifier.data.model_copy(update={"data_dir": data_dir})
    folder, notes = read_split_of_training(
        config, split, classifier.classes, classifier.trained_images
    )
    data = decode_folder(folder, config)
    samples, num_workers = data.samples(split), config.num_workers or 0
    batches = eval_batches(data, samples, config, batch_size=32, num_workers=num_workers)
    counts = Counts(len(classifier.classes), keeps_pairs=True)
    for images, labels in batches:
        counts.add(torch.from_numpy(classifier.logits(images.numpy())), labels)
    return split_metrics(counts, classifier.classes), (*data.notes, *notes)
