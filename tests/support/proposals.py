"""Facts about made-up images and machines, for the rules that choose a search file."""

from pathlib import Path

from hpo.proposal.machine import Machine, Weights
from hpo.proposal.rules import Facts
from sgformer.data_check.check import ClassSizes, SidesFound, SplitFound
from sgformer.data_check.glance import Glance

CPUS = Machine(cpus=8, memory_bytes=32 * 10**9)
GPUS = Machine(16, 128 * 10**9, gpus=2, gpu_bytes=80 * 10**9, gpu_name="NVIDIA H100")
AT_HAND = Weights("convnext_atto.d2_in1k", "on this machine")
OUT_OF_REACH = Weights("convnext_atto.d2_in1k", "out of reach", "no network")


def made_up(
    num_train: int = 4000,
    *,
    classes: int = 10,
    side: int = 480,
    num_val: int = 1000,
    val_is_of_train: bool = False,
    largest: int = 500,
    smallest: int = 300,
    machine: Machine = CPUS,
    weights: Weights = AT_HAND,
    folder: str | Path = "/images/flowers",
) -> Facts:
    """Facts; `side` is the median of the images' shorter sides, in pixels."""
    glance = Glance(
        folder=str(folder),
        splits={"train": SplitFound(num_train, classes), "val": SplitFound(num_val, classes)},
        val_is_of_train=val_is_of_train,
        class_sizes=ClassSizes("train", largest, "rose", 400.0, smallest, "tulip\n#1"),
        shorter_side=SidesFound(side, float(side), side),
        longer_side=SidesFound(side, float(side), side),
        num_looked_at=1000,
        num_unknown=0,
        passed_over=(),
    )
    return Facts(glance, machine, (weights,))
