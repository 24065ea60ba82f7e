"""Which images a batch has: the order of a pass over a split, for training and for evaluation."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from sgformer.data.image_data import Samples
from sgformer.seeding import seed_of


class Draw(NamedTuple):
    """One image to load.

    Attributes:
        position: The image's position among the decoded images.
        label: Index of the image's class.
        seed: Seed of the augmentation; None for evaluation's transform.
    """

    position: int
    label: int
    seed: int | None


class Plan(Protocol):
    """The batches of one pass over the images, as lists of draws."""

    def __iter__(self) -> Iterator[list[Draw]]: ...

    def __len__(self) -> int: ...


class EvalPlan:
    """All samples in order, without augmentation; each of n processes takes every n-th sample."""

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
    """The shuffled batches of one pass over the training images.

    Each image has a seed of its own, so a pass is the same for any number of loading processes.
    A last partial batch is left out, unless it is the only batch. If several processes train
    together, each gets pairs (i, B - 1 - i) of every batch of B images, because timm's mixup
    blends an image with the one at its mirror position.

    Args:
        samples: (N, 2) positions among the decoded images, and labels.
        batch_size: Images of an optimizer step in all processes together.
        seed: The seed of this pass.
        balanced: Draw every class equally often, with replacement.
        rank: The number of this process, from 0.
        num_processes: How many processes train together.
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
        return map(self.batch, range(len(self)))

    def batch(self, index: int) -> list[Draw]:
        """This process's images of a batch, which is counted from 0."""
        places = index * self.batch_size + self._share
        rows = self._samples[self._order[places]].tolist()
        return [
            Draw(position, label, seed_of(self._seed, int(place)))
            for place, (position, label) in zip(places, rows, strict=True)
        ]


class Place(NamedTuple):
    """Where a training step stands.

    Attributes:
        pass_number: The pass over the training images, from 1.
        step: The step within the pass, from 0.
    """

    pass_number: int
    step: int


class TrainSteps:
    """The batches of some steps in a row of a training, which may lie in several passes.

    Args:
        plan_of: Returns the plan of a pass by its number, from 1.
        steps: The steps, counted from 0 over the whole training.
        steps_per_pass: The number of batches of a pass.
        batch_size: Images of a batch, in all processes together.
    """

    def __init__(
        self,
        plan_of: Callable[[int], TrainPlan],
        steps: range,
        steps_per_pass: int,
        batch_size: int,
    ) -> None:
        self._plan_of, self.steps, self._steps_per_pass = plan_of, steps, steps_per_pass
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        for number, places in itertools.groupby(self.places, lambda place: place.pass_number):
            plan = self._plan_of(number)
            yield from (plan.batch(place.step) for place in places)

    def after(self, num_steps: int) -> Self:
        """These steps without the first ones."""
        steps = self.steps[num_steps:]
        return type(self)(self._plan_of, steps, self._steps_per_pass, self.batch_size)

    @property
    def places(self) -> Iterator[Place]:
        """Pass and index of each step."""
        for step in self.steps:
            number, index = divmod(step, self._steps_per_pass)
            yield Place(number + 1, index)


def _share(batch_size: int, rank: int, num_processes: int) -> npt.NDArray[np.int64]:
    """Sorted positions of a process's images in a batch: pairs (i, batch_size - 1 - i)."""
    num_pairs = (batch_size + 1) // 2
    first, last = (r * num_pairs // num_processes for r in (rank, rank + 1))
    pairs = np.arange(first, last)
    return np.unique(np.concatenate([pairs, batch_size - 1 - pairs]))


def share_sizes(batch_size: int, num_processes: int) -> list[int]:
    """The number of images of a batch that each process gets."""
    return [len(_share(batch_size, rank, num_processes)) for rank in range(num_processes)]
