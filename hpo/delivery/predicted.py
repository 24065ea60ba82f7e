"""A model's logits on a split's images, with loading processes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sgformer.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from sgformer.data.fused_input import Given
    from sgformer.data.image_data import ImageData

EVAL_BATCH_SIZE: Final = 32  # fits into the memory of any machine that can train


def split_batches(
    config: TrainConfig, data: "ImageData", split: str, device: "torch.device"
) -> Iterator[tuple["Given", "torch.Tensor"]]:
    """Input and labels of a split's batches, which loading processes prepare."""
    from sgformer.data.loader import num_workers_for
    from sgformer.data.model_input import eval_batches

    samples, num_workers = data.samples(split), num_workers_for(config.data, device)
    return eval_batches(data, samples, config.data, EVAL_BATCH_SIZE, device, num_workers)


def predicted(
    config: TrainConfig, model: Any, data: "ImageData", split: str, device: "torch.device"
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Logits and labels of a split's batches, from image and features where there are such."""
    from sgformer.optimization.numerics import Numerics
    from sgformer.training.evaluation import predicted_logits

    batches = split_batches(config, data, split, device)
    return predicted_logits(model, batches, Numerics(device))
