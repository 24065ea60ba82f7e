"""Turns loaded images, which are uint8, into the normalised input of a model."""

from collections.abc import Iterator

import torch

from sgformer.catalog import Preprocessing
from sgformer.config import DataConfig
from sgformer.data.augmentation import eval_transform
from sgformer.data.erasing import erase
from sgformer.data.image_data import ImageData
from sgformer.data.loader import Batch, BatchLoader, EvalPlan, ImageDataset


class ModelInput:
    """Moves batches to a device, and normalises and erases their images there.

    An image travels as uint8, a quarter of the bytes of its normalised values.

    Args:
        look: Mean and standard deviation of the normalisation.
        device: The device of the model.
        memory_format: The memory layout of the input.
    """

    def __init__(
        self,
        look: Preprocessing,
        device: torch.device | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._memory_format = memory_format
        mean, std = (
            torch.tensor(rgb, device=self._device).view(3, 1, 1) for rgb in (look.mean, look.std)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The normalised, and where the batch says so erased, images: (B, 3, H, W) float32."""
        images = self.normalised(batch.images)
        erase(images, batch.patches)
        return images

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised (B, 3, H, W) float32 images on the device, from uint8."""
        images = images.to(self._device, non_blocking=True)
        result = torch.empty(images.shape, device=self._device, memory_format=self._memory_format)
        return torch.addcmul(self._shift, images.to(torch.float32), self._scale, out=result)


def eval_batches(
    data: ImageData, split: str, config: DataConfig, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A split's normalised images (B, 3, H, W) float32 and labels (B,), in order, on the CPU.

    Raises:
        DataError: The folder has no such split.
    """
    plan = EvalPlan(data.samples(split), batch_size)
    dataset = ImageDataset(data.images, eval_transform(config))
    loader, model_input = (
        BatchLoader(
            dataset,
            config.num_workers or 0,
            batch_bytes=batch_size * 3 * config.image_size**2,
        ),
        ModelInput(config.preprocessing),
    )
    return ((model_input(batch), batch.labels) for batch in loader.batches(plan))
