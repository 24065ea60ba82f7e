"""How a batch is shared by processes and micro-batches, and which batches are too small."""

from collections.abc import Sequence

import torch
from torch import nn

from sgformer.catalog import model_facts
from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.data.plans import share_sizes
from sgformer.data.replay import train_samples
from sgformer.errors import ConfigError, OutOfMemoryError
from sgformer.optimization.batch_norm import StatisticsImages, is_synchronised
from sgformer.optimization.distributed import num_processes


def micro_batch_sizes(
    shares: Sequence[int], rank: int, largest: int, *, for_batch_norm: bool
) -> list[int]:
    """The numbers of images of a process's micro-batches, which differ by at most one.

    BatchNorm cannot train on a single image, and BatchNorm that is synchronised waits for every
    process at each micro-batch. So a model with BatchNorm has micro-batches of two images or more,
    even if that is one more than `largest`, and as many of them in every process.

    Args:
        shares: Images of the batch in each process.
        rank: The number of this process.
        largest: The largest number of images of a micro-batch.
        for_batch_norm: Whether the model has BatchNorm.
    """
    num_parts = -(-shares[rank] // largest)
    if for_batch_norm:
        num_parts = max(1, min(-(-max(shares) // largest), min(shares) // 2))
    size, num_larger = divmod(shares[rank], num_parts)
    return [size + 1] * num_larger + [size] * (num_parts - num_larger)


def fewest_at_a_time(shares: Sequence[int], *, for_batch_norm: bool) -> int:
    """Images of the largest micro-batch of any process where micro-batches are smallest."""
    parts = _of_all(shares, 1, for_batch_norm=for_batch_norm)
    return max(map(max, parts))


def fewest_for_statistics(shares: Sequence[int], largest: int, *, synchronised: bool) -> int:
    """Of how many images, at least, BatchNorm takes its statistics.

    Args:
        shares: Images of the batch in each process.
        largest: The largest number of images of a micro-batch.
        synchronised: Whether the statistics are of the images of all processes.
    """
    parts = _of_all(shares, largest, for_batch_norm=True)
    return min(map(sum, zip(*parts, strict=True))) if synchronised else min(map(min, parts))


def _of_all(shares: Sequence[int], largest: int, *, for_batch_norm: bool) -> list[list[int]]:
    """The sizes of the micro-batches of each process."""
    return [
        micro_batch_sizes(shares, rank, largest, for_batch_norm=for_batch_norm)
        for rank in range(len(shares))
    ]


class MicroBatches:
    """The size of a training's micro-batches, which is halved when memory runs out.

    Args:
        config: The config of the training.
        num_images: Training images.
        device: The device of the training.
        size: The size to begin with if the config's is larger; None: the config's.

    Attributes:
        size: Images that a process runs through the model at a time.
        largest_share: Images of a batch in the process that has the most.
    """

    def __init__(
        self, config: TrainConfig, num_images: int, device: torch.device, size: int | None = None
    ) -> None:
        self._model, self._device = config.model.name, device
        self._image_size = config.data.image_size
        self._has_batch_norm = model_facts(self._model).has_batch_norm
        batch_size = min(config.optimizer.batch_size, num_images)
        self._shares = share_sizes(batch_size, num_processes())
        self.largest_share = share = max(self._shares)
        self._asked = min(config.optimizer.micro_batch_size or share, share)
        self.size = min(size or share, self._asked)

    def halve(self) -> None:
        """Halves the size, for a training that has run out of memory.

        Raises:
            OutOfMemoryError: There is no smaller micro-batch; or several processes train, which
                must all be restarted with a smaller one: the error has its size.
        """
        fewest = fewest_at_a_time(self._shares, for_batch_norm=self._has_batch_norm)
        if self.size <= fewest:
            images = "one image at a time fits"
            if fewest > 1:
                images = f"{fewest} images at a time, the fewest with BatchNorm, fit"
            raise OutOfMemoryError(
                f"not even {images} into the memory of {self._device}: {self._model} at "
                f"{self._image_size} pixels "
                "(train.model.name, train.data.image_size, resources.gpus_per_trial)"
            )
        if len(self._shares) > 1:  # the other processes wait: all must be restarted
            error = OutOfMemoryError(
                f"a micro-batch of {self.size} does not fit into the memory of {self._device}"
            )
            error.micro_batch_size = self.size
            raise error
        self.size = (self.size + 1) // 2

    def statistics_images(self, model: nn.Module) -> StatisticsImages | None:
        """Of how many images BatchNorm takes its statistics; None without BatchNorm."""
        if not self._has_batch_norm:
            return None
        now, asked = (
            fewest_for_statistics(self._shares, size, synchronised=is_synchronised(model))
            for size in (self.size, self._asked)
        )
        return StatisticsImages(now, asked)


def check_batches(config: TrainConfig, data: ImageData) -> None:
    """Checks that each process gets images enough of a batch and of a split.

    Each of several processes needs two or more images, and BatchNorm needs two of a batch.

    Raises:
        ConfigError: A batch, or a split, has too few images.
    """
    size = num_processes()
    smallest_batch = min(config.optimizer.batch_size, len(train_samples(data, config.extension)))
    num_val = len(data.samples("val"))
    smallest = min(smallest_batch, num_val, config.eval_images or num_val)
    if smallest < 2 * size and size > 1:
        raise ConfigError(
            f"{size} processes cannot share a batch, or a split, of {smallest} images; at least "
            f"{2 * size} are needed (resources.workers_per_trial, train.optimizer.batch_size)"
        )
    if smallest_batch == 1 and model_facts(config.model.name).has_batch_norm:
        raise ConfigError(
            f"{config.model.name} has BatchNorm, which cannot train on batches of one image; at "
            "least 2 are needed (train.optimizer.batch_size, or more images in train)"
        )
