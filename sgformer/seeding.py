"""Random states derived from what they are for, so that none needs to be kept."""

import hashlib
import random

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A seed, below 2**63, that depends on every part and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seeds every generator that a model or timm's transforms draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_transforms(seed: int) -> None:
    """Seeds what timm's transforms draw from; a fiftieth of `seed_everything`'s time."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
