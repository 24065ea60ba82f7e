"""Loads the batches of decoded images that a plan names, in processes of its own."""

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sgformer.config import TrainConfig
from sgformer.data.augmentation import (
    Transform,
    erasing_prob,
    eval_transform,
    train_transform,
)
from sgformer.data.erasing import NO_PATCH, draw_patch
from sgformer.data.image_cache import DecodedImages
from sgformer.data.plans import Draw, Plan
from sgformer.data.shared_memory import (
    Loading,
    fitted,
    free_shared_memory,
    lacks_shared_memory,
    with_fewer,
)
from sgformer.data_config import DataConfig
from sgformer.errors import InputError
from sgformer.seeding import seed_transforms


class Batch(NamedTuple):
    """Loaded images, on the CPU.

    Attributes:
        images: Augmented or cropped images, (B, 3, H, W) uint8.
        labels: Indices of the images' classes, (B,) int64.
        patches: The images' patches to erase (`erasing.Patch`), (B, 5) int64.
        positions: The images' positions among the decoded images, (B,) int64; features are found
            by them.
    """

    images: torch.Tensor
    labels: torch.Tensor
    patches: torch.Tensor
    positions: torch.Tensor = torch.empty(0, dtype=torch.int64)


# An image (3, H, W) uint8, the index of its class, its patch (5,), and its position.
Example = tuple[torch.Tensor, int, torch.Tensor, int]


class TimedBatches:
    """Passes batches on and measures how long the training waits for them.

    Attributes:
        seconds: Seconds spent waiting so far.
    """

    def __init__(self, batches: Iterator[Batch], seconds: float = 0.0) -> None:
        self._batches, self.seconds = batches, seconds

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.seconds += time.perf_counter() - start


class ImageDataset(Dataset[Example]):
    """Images as (3, H, W) uint8: augmented if the draw has a seed, else as in evaluation.

    Args:
        images: The decoded images.
        evaluation: The transform of evaluation.
        training: The transform of training; None: all images are treated as in evaluation.
        erasing_prob: Share of augmented images that get a patch to erase.
    """

    def __init__(
        self,
        images: DecodedImages,
        evaluation: Transform,
        training: Transform | None = None,
        erasing_prob: float = 0.0,
    ) -> None:
        self._images, self._eval, self._train = images, evaluation, training
        self._erasing_prob = erasing_prob

    def __getitem__(self, draw: Draw) -> Example:
        image, patch = self._images[draw.position], NO_PATCH
        if draw.seed is None or self._train is None:
            pixels = self._eval(image)
        else:
            seed_transforms(draw.seed)
            pixels = self._train(image)
            patch = draw_patch(self._erasing_prob, *pixels.shape[1:])
        return pixels, draw.label, torch.tensor(patch), draw.position


class _CurrentPlan(Sampler[list[Draw]]):
    """Lets one DataLoader, and its loading processes, serve one plan after another."""

    plan: Plan

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


class BatchLoader:
    """Loads the batches of plans, in loading processes that live as long as the loader.

    The processes, and the batches that they load ahead, are fitted to shared memory. Without
    loading processes, augmentation seeds the global generators of torch, NumPy and Python.

    Args:
        dataset: The images.
        num_workers: The number of loading processes.
        pin_memory: Whether batches go to page-locked memory, from which a GPU copies faster.
        batch_bytes: The size of the largest batch.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        num_workers: int = 0,
        *,
        pin_memory: bool = False,
        batch_bytes: int = 0,
    ) -> None:
        self._current = _CurrentPlan()
        self._dataset, self._pin_memory, self._batch_bytes = dataset, pin_memory, batch_bytes
        self._start(fitted(num_workers, batch_bytes, free_shared_memory()))

    @property
    def note(self) -> str | None:
        """What the user should know of the loading; None: nothing."""
        return self._loading.note

    def batches(self, plan: Plan) -> Iterator[Batch]:
        """The batches of a plan. The loader can load only one plan at a time.

        If shared memory runs out, fewer processes go on with the batches that are left.

        Raises:
            InputError: An image cannot be read.
        """
        num_done, is_whole = 0, False
        while not is_whole:
            self._current.plan = plan if num_done == 0 else _Rest(plan, num_done)
            try:
                for parts in self._loader:
                    num_done += 1
                    yield Batch(*parts)
                is_whole = True
            except InputError as error:
                # For an error in a loading process the message is the whole traceback.
                last_line = str(error).strip().splitlines()[-1]
                raise type(error)(last_line.removeprefix(_full_name(error))) from None
            except (RuntimeError, OSError) as error:
                if not lacks_shared_memory(error) or self._loading.num_workers == 0:
                    raise
                self._start(with_fewer(self._loading, self._batch_bytes, free_shared_memory()))

    def _start(self, loading: Loading) -> None:
        options: dict[str, Any] = {}
        if loading.num_workers:
            # Forked processes share the open images; Python 3.14's default would copy them.
            options = {
                "persistent_workers": True,
                "prefetch_factor": loading.prefetch,
                "multiprocessing_context": "fork",
            }
        self._loading = loading
        self._loader = DataLoader(
            self._dataset,
            batch_sampler=self._current,
            num_workers=loading.num_workers,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # else the DataLoader draws from the global generator
            **options,
        )


class _Rest:
    """The batches of a plan but the first ones."""

    def __init__(self, plan: Plan, num_done: int) -> None:
        self._plan, self._num_done = plan, num_done

    def __len__(self) -> int:
        return len(self._plan) - self._num_done

    def __iter__(self) -> Iterator[list[Draw]]:
        return itertools.islice(iter(self._plan), self._num_done, None)


def training_loader(
    images: DecodedImages, config: TrainConfig, device: torch.device, batch_bytes: int
) -> BatchLoader:
    """The loader of a training, which augments images as the config says.

    Args:
        images: The images.
        config: The training's configuration.
        device: The training's device.
        batch_bytes: Bytes of the largest batch of images that the process loads.
    """
    dataset = ImageDataset(
        images,
        eval_transform(config.data),
        train_transform(config.data, config.augmentation),
        erasing_prob(config.augmentation),
    )
    return BatchLoader(
        dataset,
        num_workers_for(config.data, device),
        pin_memory=device.type == "cuda",
        batch_bytes=batch_bytes,
    )


def num_workers_for(config: DataConfig, device: torch.device) -> int:
    """The number of loading processes for work on a device: the config's, or a default."""
    if config.num_workers is not None:
        return config.num_workers
    return default_num_workers(torch.get_num_threads(), has_gpu=device.type == "cuda")


def _full_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}: "


def default_num_workers(num_cpus: int, *, has_gpu: bool) -> int:
    """The number of loading processes for a training on `num_cpus` CPUs.

    With a GPU, all CPUs but one load images (16 at most), because they have little else to do. A
    training on CPUs is fastest with one loading process. Source: benchmarks/train_step.py.
    """
    return max(1, min(num_cpus - 1, 16)) if has_gpu else int(num_cpus > 1)
