"""Turns loaded images, which are uint8, into the normalised input of a model."""

from collections.abc import Iterator

import torch

from sgformer.catalog import Preprocessing
from sgformer.data.augmentation import eval_transform
from sgformer.data.erasing import erase
from sgformer.data.fused_input import FusedInput, Given
from sgformer.data.image_data import ImageData, Samples
from sgformer.data.image_features import ImageFeatures
from sgformer.data.loader import Batch, BatchLoader, ImageDataset
from sgformer.data.plans import EvalPlan
from sgformer.data_config import DataConfig


class ModelInput:
    """Moves batches to a device, and normalises and erases their images there.

    An image travels as uint8, a quarter of the bytes of its normalised values.

    Args:
        look: Mean and standard deviation of the normalisation.
        device: The device of the model.
        memory_format: The memory layout of the input.
        features: The features that go with the images; None: there are none.
    """

    def __init__(
        self,
        look: Preprocessing,
        device: torch.device | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
        features: ImageFeatures | None = None,
    ) -> None:
        self._features = features
        self._device = device or torch.device("cpu")
        self._memory_format = memory_format
        mean, std = (
            torch.tensor(rgb, device=self._device).view(3, 1, 1) for rgb in (look.mean, look.std)
        )
        self._factors = 1 / (255 * std), -mean / std  # scale and shift

    def __call__(self, batch: Batch) -> Given:
        """The images (B, 3, H, W) float32, normalised, and erased where the batch says so.

        With features, (B, size) float32, where there are any.
        """
        images = self.normalised(batch.images)
        erase(images, batch.patches)
        if self._features is None:
            return images
        features = self._features.of(batch.positions)
        return FusedInput(images, features.to(self._device, non_blocking=True))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised (B, 3, H, W) float32 images on the device, from uint8."""
        images = images.to(self._device, non_blocking=True)
        result = images.to(torch.float32, memory_format=self._memory_format)
        # As large as an image: with one number a channel a CPU takes twice the time.
        scale, shift = (
            factor.expand(1, *images.shape[1:]).contiguous(memory_format=self._memory_format)
            for factor in self._factors
        )
        return torch.addcmul(shift, result, scale, out=result)


def eval_batches(
    data: ImageData,
    samples: Samples,
    config: DataConfig,
    batch_size: int,
    device: torch.device | None = None,
    num_workers: int = 0,
) -> Iterator[tuple[Given, torch.Tensor]]:
    """The samples' normalised images (B, 3, H, W) float32 and labels (B,), in order.

    With the images' features where the data have any.

    Args:
        data: The images.
        samples: (N, 2) positions and labels, such as those of a split.
        config: How the images are preprocessed.
        batch_size: The number of images of a batch.
        device: Where the images are normalised, and stay; None: the CPU.
        num_workers: The number of loading processes.
    """
    dataset = ImageDataset(data.images, eval_transform(config))
    on_gpu = device is not None and device.type == "cuda"
    num_bytes = batch_size * 3 * config.image_size**2
    loader = BatchLoader(dataset, num_workers, pin_memory=on_gpu, batch_bytes=num_bytes)
    model_input = ModelInput(config.preprocessing, device, features=data.features)
    batches = loader.batches(EvalPlan(samples, batch_size))
    return ((model_input(batch), batch.labels) for batch in batches)
