"""What an extended model forgets: its old classes before and after, on the same val images."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.errors import RunError
from hpo.model_files import ModelFiles
from sgformer.config import TrainConfig
from sgformer.intervals import paired_interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from sgformer.data.image_data import ImageData, Samples

BATCH_SIZE: Final = 32


@dataclass(frozen=True)
class Forgetting:
    """Old and new classes of an extended model on val; shares of images, 0..1.

    The model before the extension chooses among its own classes, the model after among all.

    Attributes:
        num_old_classes: The first classes, which the model knew before.
        new_classes: The names of the others.
        num_old_images, num_new_images: Val images of old and of new classes.
        before: Top-1 of the model before the extension, on images of old classes.
        after: Top-1 of the extended model on the same images.
        forgetting: `before` less `after`.
        low, high: The 95 % interval of `forgetting`, paired by image.
        new: Top-1 of the extended model on images of new classes.
    """

    num_old_classes: int
    new_classes: tuple[str, ...]
    num_old_images: int
    num_new_images: int
    before: float
    after: float
    forgetting: float
    low: float
    high: float
    new: float

    def in_words(self) -> str:
        """Forgetting with its interval, and the figures that it comes from."""
        return (
            f"{self.forgetting:.4f} ({self.low:.4f} to {self.high:.4f}) of val top-1 on the "
            f"{self.num_old_classes} old classes ({self.before:.4f} before, {self.after:.4f} "
            f"after, {self.num_old_images} images)"
        )

    def refuse_more_than(self, most: float, base: Path | None) -> None:
        """Raises RunError if the model has forgotten too much to be delivered."""
        if self.forgetting > most:
            raise RunError(
                f"the extended model forgets {self.in_words()}, which is {self.forgetting:.4f} "
                f"and more than --max-forgetting {most:g}; it is not delivered, and {base} is "
                f"untouched. Its top-1 on the {len(self.new_classes)} new classes is "
                f"{self.new:.4f}. Deliver it all the same with --resume and a higher "
                "--max-forgetting; or extend anew under another --study-name: with more exemplars "
                "(extension.keep_exemplars, when the base is trained), more epochs, or a search "
                "(--into)"
            )


def measure_forgetting(
    config: TrainConfig, model: Any, base: Path, data: "ImageData"
) -> Forgetting:
    """Evaluates the extended model and its base on val, where the model lies; float32.

    Args:
        config: The extended model's configuration; the base's images and cache are where its are.
        model: The extended model, on its device.
        base: The base's checkpoint.
        data: The images of the extension.
    """
    from sgformer.training.trained_model import load_trained

    was, old_model, old_classes = load_trained(base)
    was = was.model_copy(update={"data": was.data.at_places_of(config.data)})
    device, num_old = next(model.parameters()).device, len(old_classes)
    val = data.samples("val")
    old, new = val[val[:, 1] < num_old], val[val[:, 1] >= num_old]
    before = are_right(was, old_model.to(device), data, old, device)
    after = are_right(config, model, data, old, device)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = paired_interval(won, lost, len(old))  # of what is lost, less what is won
    return Forgetting(
        num_old_classes=num_old,
        new_classes=data.classes[num_old:],
        num_old_images=len(old),
        num_new_images=len(new),
        before=float(before.mean()),
        after=float(after.mean()),
        forgetting=float(before.mean() - after.mean()),
        low=low,
        high=high,
        new=float(are_right(config, model, data, new, device).mean()),
    )


def are_right(
    config: TrainConfig,
    model: Any,
    data: "ImageData",
    samples: "Samples",
    device: "torch.device",
) -> "npt.NDArray[np.bool_]":
    """For each sample whether its class has the model's highest logit, (N,)."""
    import numpy as np

    parts = [
        (logits.argmax(1) == labels.to(device)).cpu().numpy()
        for logits, labels in _logits(config, model, data, samples, device)
    ]
    assert parts, "each class has an image in val"
    return np.concatenate(parts)


def _logits(
    config: TrainConfig,
    model: Any,
    data: "ImageData",
    samples: "Samples",
    device: "torch.device",
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    from sgformer.data.loader import num_workers_for
    from sgformer.data.model_input import eval_batches
    from sgformer.optimization.numerics import Numerics, exact_float32
    from sgformer.training.evaluation import predicted_logits

    num_workers = num_workers_for(config.data, device)
    batches = eval_batches(data, samples, config.data, BATCH_SIZE, device, num_workers)
    with exact_float32():
        yield from predicted_logits(model, batches, Numerics(device))


def told_of(found: Forgetting, config: TrainConfig, seconds: float | None) -> dict[str, Any]:
    """The content of extension.json: what was extended, how, and what it forgets.

    Args:
        found: What the model forgets.
        config: Its configuration.
        seconds: How long it was trained; None: unknown.
    """
    base = config.extension.base
    return {
        # As a reader elsewhere may know it, such as 'digits/best'.
        "base": None if base is None else "/".join(base.parts[-2:]),
        **asdict(found),
        "exemplars": config.extension.exemplars,
        "choice": config.extension.choice,
        "seconds": seconds,
    }


def read_forgetting(files: ModelFiles) -> Mapping[str, Any] | None:
    """What extension.json says; None: the model is no extension, or is not delivered."""
    if not files.extension.is_file():
        return None
    told: dict[str, Any] = json.loads(files.extension.read_text(encoding="utf-8"))
    return told
