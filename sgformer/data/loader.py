"""Batches of decoded images: which ones, in which order, and the processes that load them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sgformer.config import DataConfig
from sgformer.data.augmentation import Transform, eval_transform
from sgformer.data.image_cache import DecodedImages, ImageData, Samples
from sgformer.errors import InputError
from sgformer.seeding import seed_of, seed_transforms

Batch = tuple[torch.Tensor, torch.Tensor]  # (B, 3, H, W) normalised float32, (B,) int64 labels


class Draw(NamedTuple):
    """One image to load: its position, its label, the seed of its augmentation (None: none)."""

    position: int
    label: int
    seed: int | None


class Plan(Protocol):
    """The batches of one pass, as draws."""

    def __iter__(self) -> Iterator[list[Draw]]: ...

    def __len__(self) -> int: ...


class EvalPlan:
    """Every sample in order, unaugmented; of several processes each takes every n-th."""

    def __init__(
        self, samples: Samples, batch_size: int, rank: int = 0, num_processes: int = 1
    ) -> None:
        self._samples, self._batch_size = samples[rank::num_processes], batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._samples) / self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self._samples), self._batch_size):
            rows = self._samples[start : start + self._batch_size].tolist()
            yield [Draw(position, label, None) for position, label in rows]


class TrainPlan:
    """One epoch's shuffled batches, each image with its own seed.

    The seeds make an epoch the same for any number of loading processes. A last partial batch
    is left out, unless it is the only one. Of several training processes each takes a share of
    every batch, the i-th image from its start together with the i-th from its end, which is
    whom timm's mixup mixes it with.

    Args:
        samples: (N, 2) positions and labels.
        batch_size: Images of an optimizer step, over all processes.
        seed: Of this epoch.
        balanced: Draw every class equally often, with replacement.
        rank: This process.
        num_processes: That train together.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int,
        *,
        balanced: bool = False,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self._samples, self._seed = samples, seed
        self.batch_size = min(batch_size, len(samples))
        random = np.random.default_rng(seed)
        if balanced:
            labels = samples[:, 1]
            weights = 1 / np.bincount(labels)[labels]
            order = random.choice(len(samples), len(samples), p=weights / weights.sum())
        else:
            order = random.permutation(len(samples))
        self._order = order
        self._share = _share(self.batch_size, rank, num_processes)

    def __len__(self) -> int:
        return len(self._order) // self.batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            places = start + self._share
            rows = self._samples[self._order[places]].tolist()
            yield [
                Draw(position, label, seed_of(self._seed, int(place)))
                for place, (position, label) in zip(places, rows, strict=True)
            ]


def _share(batch_size: int, rank: int, num_processes: int) -> npt.NDArray[np.int64]:
    """A process's places in a batch: pairs of the i-th and the i-th from the end, in order."""
    num_pairs = (batch_size + 1) // 2
    first, last = (r * num_pairs // num_processes for r in (rank, rank + 1))
    pairs = np.arange(first, last)
    return np.unique(np.concatenate([pairs, batch_size - 1 - pairs]))


def largest_share(batch_size: int, num_samples: int, num_processes: int) -> int:
    """The most images of a batch that one of the processes has."""
    batch_size = min(batch_size, num_samples)
    return max(len(_share(batch_size, rank, num_processes)) for rank in range(num_processes))


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Decoded images, each through the training or the evaluation transform as drawn."""

    def __init__(
        self, images: DecodedImages, evaluation: Transform, training: Transform | None = None
    ) -> None:
        self._images, self._eval, self._train = images, evaluation, training

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        image = self._images[draw.position]
        if draw.seed is None or self._train is None:
            return self._eval(image), draw.label
        seed_transforms(draw.seed)
        return self._train(image), draw.label


class _CurrentPlan(Sampler[list[Draw]]):
    plan: Plan

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


class BatchLoader:
    """Loads planned batches, by processes that live as long as this does.

    Without processes it leaves torch's, NumPy's and Python's global generators seeded anew.
    """

    def __init__(
        self, dataset: ImageDataset, num_workers: int = 0, *, pin_memory: bool = False
    ) -> None:
        self._current = _CurrentPlan()
        options: dict[str, Any] = {}
        if num_workers:
            # Forked ones share the mapped images; Python 3.14's default would copy them.
            options = {
                "persistent_workers": True,
                "prefetch_factor": 4,
                "multiprocessing_context": "fork",
            }
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._current,
            num_workers=num_workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # leaves the global one as it is
            **options,
        )

    def batches(self, plan: Plan) -> Iterator[Batch]:
        """The plan's batches; one plan at a time.

        Raises:
            InputError: An image cannot be read.
        """
        self._current.plan = plan
        try:
            yield from self._loader
        except InputError as error:
            # Of a loading process torch gives a whole traceback as the message.
            last_line = str(error).strip().splitlines()[-1]
            raise type(error)(last_line.removeprefix(_full_name(error))) from None


def _full_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}: "


def eval_batches(
    data: ImageData, split: str, config: DataConfig, batch_size: int
) -> Iterator[Batch]:
    """A split's batches in order, as evaluation sees them.

    Raises:
        DataError: The folder has no such split.
    """
    plan = EvalPlan(data.samples(split), batch_size)
    dataset = ImageDataset(data.images, eval_transform(config))
    return BatchLoader(dataset, config.num_workers or 0).batches(plan)


def default_num_workers(num_cpus: int, *, has_gpu: bool) -> int:
    """Loading processes for a training with so many CPUs.

    With a GPU the CPUs have nothing else to do. On a CPU one loader beside the training uses
    them best (measured, benchmarks/train_step.py).
    """
    return max(1, min(num_cpus - 1, 16)) if has_gpu else int(num_cpus > 1)
