"""How a batch is shared by processes and micro-batches, and which batches are too small."""

from collections.abc import Sequence

from sgformer.catalog import model_facts
from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.errors import ConfigError, OutOfMemoryError
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


def halved(size: int, shares: Sequence[int], config: TrainConfig, device: object) -> int:
    """Half a micro-batch, for a training that has run out of memory.

    Args:
        size: The micro-batch that did not fit.
        shares: Images of a batch in each process.
        config: The config of the training.
        device: The device whose memory ran out, for the message.

    Raises:
        OutOfMemoryError: There is no smaller micro-batch.
    """
    fewest = fewest_at_a_time(shares, for_batch_norm=model_facts(config.model.name).has_batch_norm)
    if size > fewest:
        return (size + 1) // 2
    images = "one image at a time fits"
    if fewest > 1:
        images = f"{fewest} images at a time, the fewest with BatchNorm, fit"
    raise OutOfMemoryError(
        f"not even {images} into the memory of {device}: {config.model.name} at "
        f"{config.data.image_size} pixels "
        "(train.model.name, train.data.image_size, resources.gpus_per_trial)"
    )


def to_be_restarted(
    size: int, shares: Sequence[int], config: TrainConfig, device: object
) -> OutOfMemoryError:
    """The error of a process without memory, whose group is restarted with less; see `halved`."""
    halved(size, shares, config, device)
    error = OutOfMemoryError(f"a micro-batch of {size} does not fit into the memory of {device}")
    error.micro_batch_size = size
    return error


def check_batches(config: TrainConfig, data: ImageData) -> None:
    """Checks that each process gets images enough of a batch and of a split.

    Each of several processes needs two or more images, and BatchNorm needs two of a batch.

    Raises:
        ConfigError: A batch, or a split, has too few images.
    """
    size = num_processes()
    smallest_batch = min(config.optimizer.batch_size, len(data.samples("train")))
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
