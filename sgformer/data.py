"""Datasets and loaders over decoded images."""

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sgformer.augmentation import Transform
from sgformer.decoded_images import ImageData


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """A split's decoded images through a transform, with labels.

    Raises:
        DataError: The folder has no such split.
    """

    def __init__(self, data: ImageData, split: str, transform: Transform) -> None:
        self.images, self.samples, self.transform = data.images, data.samples(split), transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        position, label = self.samples[i]
        return self.transform(Image.fromarray(self.images[position])), label


def create_loader(
    dataset: ImageDataset,
    batch_size: int,
    num_workers: int = 0,
    shuffle_seed: int | None = None,
    *,
    pin_memory: bool = False,
) -> DataLoader[tuple[torch.Tensor, int]]:
    """Batches in order; with a seed, shuffled and without a last partial batch."""
    shuffle = shuffle_seed is not None
    generator = torch.Generator()
    if shuffle_seed is not None:
        generator.manual_seed(shuffle_seed)
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=num_workers,
        drop_last=shuffle and len(dataset) > batch_size,
        pin_memory=pin_memory,
    )
