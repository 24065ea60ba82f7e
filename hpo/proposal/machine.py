"""The machine that a search would run on, and the pretrained weights that it can have."""

from dataclasses import dataclass

from sgformer.cpus import usable_cpus, usable_memory


@dataclass(frozen=True)
class Machine:
    """What this process may use of the machine.

    Attributes:
        cpus: Number of CPUs.
        memory_bytes: Memory.
        gpus: Number of GPUs that PyTorch can use.
        gpu_bytes: Memory of the smallest GPU; 0 without a GPU.
        gpu_name: The first GPU's product name; None without a GPU.
    """

    cpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_bytes: int = 0
    gpu_name: str | None = None


@dataclass(frozen=True)
class Weights:
    """A model whose pretrained weights may be started from.

    Attributes:
        model: Its name.
        whereabouts: Where the weights are, in words.
        problem: Why they are out of reach, and how to get them; empty: they can be had.
    """

    model: str
    whereabouts: str
    problem: str = ""


def this_machine() -> Machine:
    """This machine, whose GPUs PyTorch counts as a search does."""
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Machine(
        cpus=usable_cpus(),
        memory_bytes=usable_memory(),
        gpus=len(found),
        gpu_bytes=min((one.total_memory for one in found), default=0),
        gpu_name=found[0].name if found else None,
    )


def weights_of(models: tuple[str, ...]) -> tuple[Weights, ...]:
    """Where each model's pretrained weights are; nothing is downloaded."""
    from sgformer.model.weight_sources import whereabouts

    return tuple(Weights(name, *map(str, whereabouts(name))) for name in models)
