"""Chooses the images that a model keeps of each class, so that it can be extended later."""

import itertools
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from sgformer.config import TrainConfig
from sgformer.data.fused_input import images_of
from sgformer.data.image_data import ImageData, Samples
from sgformer.data.loader import num_workers_for
from sgformer.data.model_input import eval_batches
from sgformer.data.replay import train_samples
from sgformer.optimization.numerics import exact_float32

# Herding looks at so many images for each that it chooses: more cost time, and change little.
CANDIDATES: Final = 10
BATCH_SIZE: Final = 32
HERDING, RANDOM = "herding", "random"


def herding_order(features: Tensor, most: int) -> list[int]:
    """The images whose features' mean is nearest to the mean of all, the most telling first.

    Any first part of the order is a good choice of that size.
    Source: Rebuffi et al., arXiv:1611.07725, algorithm 4.

    Args:
        features: The features of a class's images, (N, D) on the CPU; their lengths do not count.
        most: How many images are chosen, at most.
    """
    unit = nn.functional.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros_like(unit[0])
    is_left = torch.ones(len(unit), dtype=torch.bool)
    chosen: list[int] = []
    for k in range(1, min(most, len(unit)) + 1):
        distances = (mean - (total + unit) / k).norm(dim=1)
        best = int(distances.where(is_left, torch.inf).argmin())
        chosen.append(best)
        is_left[best] = False
        total += unit[best]
    return chosen


def choose_exemplars(
    config: TrainConfig, model: nn.Module, data: ImageData, number: int, device: torch.device
) -> dict[str, Samples]:
    """What a delivered model keeps: (N, 2) positions and labels by kind, by rank, then by class.

    Of train images `number` of each class by herding, and as many at random; of val and test all,
    in random order.

    Args:
        config: The model's resolved configuration.
        model: The model, on the device.
        data: The images of its training.
        number: Train images of each class, at most.
        device: Where features are computed.
    """
    train = train_samples(data, config.extension)
    pool = _first_of_each(_shuffled_classes(train), CANDIDATES * number)
    kept = {
        HERDING: _by_rank(list(_herded(config, model, data, pool, number, device))),
        RANDOM: _by_rank([group[:number] for group in pool]),
    }
    for split in ("val", "test"):
        if split in data.splits:
            kept[split] = _by_rank(_shuffled_classes(data.samples(split)))
    return kept


def _shuffled_classes(samples: Samples) -> list[Samples]:
    """The samples of each class, in an order that is always the same."""
    random = np.random.default_rng(0)
    order = random.permutation(len(samples))
    order = order[np.argsort(samples[order, 1], kind="stable")]
    starts = np.flatnonzero(np.diff(samples[order, 1])) + 1
    return list(np.split(samples[order], starts)) if len(samples) else []


def _first_of_each(groups: list[Samples], most: int) -> list[Samples]:
    return [group[:most] for group in groups]


def _by_rank(groups: list[Samples]) -> Samples:
    """The first sample of each class, then the second of each, and so on."""
    if not groups:
        return np.empty((0, 2), dtype=np.int64)
    ranks = np.concatenate([np.arange(len(group)) for group in groups])
    return np.asarray(np.concatenate(groups)[np.argsort(ranks, kind="stable")])


def _herded(
    config: TrainConfig,
    model: nn.Module,
    data: ImageData,
    pool: list[Samples],
    number: int,
    device: torch.device,
) -> Iterator[Samples]:
    """Each class's samples in herding order; no more features are kept than of a class."""
    if not pool:
        return
    num_workers = num_workers_for(config.data, device)
    together = np.concatenate(pool)
    batches = eval_batches(data, together, config.data, BATCH_SIZE, device, num_workers)
    told = (
        pair
        for images, labels in batches
        for pair in zip(
            labels.tolist(), _features(model, images_of(images).to(device)), strict=True
        )
    )
    for group, (_, of_class) in zip(pool, itertools.groupby(told, itemgetter(0)), strict=True):
        features = torch.stack([one for _, one in of_class])
        yield group[herding_order(features, number)]


@torch.inference_mode()
def _features(model: nn.Module, images: Tensor) -> Tensor:
    """What the head's last layer sees of the images, (B, features) float32 on the CPU."""
    model.eval()
    with exact_float32():
        found: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return found.flatten(1).float().cpu()
