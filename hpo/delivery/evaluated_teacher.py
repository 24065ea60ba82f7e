"""What a teacher reaches on the val images that its student is judged on."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.delivery.predicted import predicted
from sgformer.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from sgformer.data.image_data import ImageData


def evaluated_teacher(
    paths: tuple[Path, ...], student: TrainConfig, data: "ImageData", device: "torch.device"
) -> dict[str, Any]:
    """A teacher's metrics on val, as it teaches: it sees the student's images.

    Args:
        paths: The teacher's checkpoints; several are an ensemble.
        student: The student's resolved configuration.
        data: The images of the student.
        device: Where the teacher answers.

    Returns:
        Names of its models, their parameters together, its metrics on val by name, and whether it
        may have been trained on images of this val.
    """
    from sgformer.model.ensemble import Ensemble
    from sgformer.optimization.numerics import exact_float32
    from sgformer.training.counts import Counts
    from sgformer.training.teacher import teacher_members
    from sgformer.training.trained_model import read_trained

    members = teacher_members(paths, data.classes)
    model = Ensemble(members, student.data.preprocessing).to(device).eval()
    counts = Counts(len(data.classes), device)
    images = replace(data, features=None)
    with exact_float32():
        for logits, labels in predicted(student, model, images, "val", device):
            counts.add(logits, labels)
    configs = [config for path in paths for config in read_trained(path)[0]]
    return {
        "models": [config.model.name for config in configs],
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "val": asdict(counts.scores()),
        "may_know_val": any(_may_know_val(path, student, data) for path in paths),
    }


def _may_know_val(path: Path, student: TrainConfig, data: "ImageData") -> bool:
    """Whether a teacher was trained on a part of the student's val images.

    It was, where both split val off the same train images, and not alike.
    """
    from sgformer.images.trained_images import TrainedImages
    from sgformer.training.checkpoint_file import read_metadata
    from sgformer.training.trained_model import read_trained

    known = TrainedImages.from_metadata(read_metadata(path))
    if known is None or not data.trained_images.val_of_train:
        return False
    own, (config, *_) = student.data, read_trained(path)[0]
    same_split = (own.val_seed, own.val_fraction) == (
        config.data.val_seed, config.data.val_fraction,
    )  # fmt: skip
    same_train = known.digests.get("train") == data.trained_images.digests.get("train")
    return same_train and not (known.val_of_train and same_split)
