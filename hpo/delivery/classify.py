"""Runs exported models, on a split of an image folder or on single images."""

from pathlib import Path
from typing import TYPE_CHECKING

from sgformer.data.image_folder import SPLITS, read_split
from sgformer.errors import InputError

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import OnnxClassifier
    from sgformer.training.evaluation import SplitMetrics


def load_classifier(model: Path) -> "OnnxClassifier":
    """Loads an exported model; raises DataError if the file is no exported model."""
    from sgformer.export.onnx_classifier import OnnxClassifier

    return OnnxClassifier(model)


def evaluate_onnx(model: Path, data_dir: Path, split: str) -> "SplitMetrics":
    """Metrics of an exported model on a split, with the preprocessing stored in the model.

    Raises:
        InputError: The model or the image folder cannot be read, or there is no such split.
    """
    import torch

    from sgformer.data.image_data import decode_folder
    from sgformer.data.model_input import eval_batches
    from sgformer.training.counts import Counts
    from sgformer.training.evaluation import split_metrics

    if split not in SPLITS:
        raise InputError(f"--split: {split!r} is none of {', '.join(SPLITS)}")
    classifier = load_classifier(model)
    config = classifier.data.model_copy(update={"data_dir": data_dir})
    data = decode_folder(read_split(config, split, classifier.classes), config)
    samples, num_workers = data.samples(split), config.num_workers or 0
    batches = eval_batches(data, samples, config, batch_size=32, num_workers=num_workers)
    counts = Counts(len(classifier.classes), keeps_pairs=True)
    for images, labels in batches:
        counts.add(torch.from_numpy(classifier.logits(images.numpy())), labels)
    return split_metrics(counts, classifier.classes)
