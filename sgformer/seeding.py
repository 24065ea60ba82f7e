"""Seeds derived from what they are used for, so that checkpoints need no random state."""

import hashlib
import random

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A seed in 0..2**63 - 1 that depends on all parts and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seeds all generators from which a model or timm's transforms draw."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_transforms(seed: int) -> None:
    """Seeds the generators of timm's transforms, in a fiftieth of `seed_everything`'s time."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
