"""Measures what the trainings of a search cost: a few steps of each architecture of its space.

Importing this module is cheap; torch is imported by the first measurement.
"""

import contextlib
import math
import socket
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpo.config.combinations import combinations, listed_values
from hpo.config.resumed import with_common_decode_size
from hpo.config.schema import SearchConfig
from hpo.config.search_space import (
    ARCHITECTURE,
    CategoricalParameter,
    Parameter,
    Params,
    Space,
    apply_params,
    value_at,
)
from hpo.errors import RunError
from hpo.execution.cluster import TrialResources, connected
from hpo.execution.retrain import run_on_cluster
from sgformer.config import TrainConfig
from sgformer.data.image_folder import ImageFolder
from sgformer.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch

    from sgformer.data.few_images import FewImages
    from sgformer.data.image_data import ImageData
    from sgformer.training.trainer import Trainer

# The settings, of those that trials may differ in, that a step's time and memory depend on.
COSTLY: Final = (
    *ARCHITECTURE, "optimizer.batch_size", "precision", "freeze", "augmentation.policy",
)  # fmt: skip
MOST_VALUES: Final = 4  # of a range; of a longer one, both ends and the middle are measured
NUM_IMAGES: Final = 64
NUM_WARM_UP: Final = 2  # steps that are not timed
MOST_STEPS: Final = 200
SECONDS_OF_STEPS: Final = 4.0
SECONDS_OF_NVML: Final = 1.0  # its utilisation is of at most so long before
QUICK_SECONDS: Final = 2.0  # an evaluation of less is timed once more, when all is warm
NUM_EVAL_BATCHES: Final = 2
NEVER_ENDS: Final = 10_000  # steps of the measured epoch


@dataclass(frozen=True)
class Cost:
    """What a training of one architecture takes, measured alone on its device.

    Attributes:
        settings: The values of COSTLY.
        epoch_seconds: Seconds of an epoch: of its steps, with the loading of their images, and of
            its validation. NaN if not one image at a time fits into memory.
        memory_bytes: Memory of the process on the GPU; on a CPU, its resident memory.
        device: The device, and the node's name.
        micro_batch_size: Images that go through the model at a time.
        gpu_bytes: Memory of the whole GPU; None: it trained on a CPU.
        utilization: Share of time in which the GPU worked, 0..1; None if unknown.
        problem: Why it cannot be trained; None: it can.
    """

    settings: Params
    epoch_seconds: float
    memory_bytes: int
    device: str
    micro_batch_size: int
    gpu_bytes: int | None = None
    utilization: float | None = None
    problem: str | None = None


class Profile:
    """The costs of a space's architectures.

    Args:
        costs: What was measured.

    Attributes:
        sound: The costs of those that can be trained.

    Raises:
        RunError: None of the architectures can be trained.
    """

    def __init__(self, costs: Sequence[Cost]) -> None:
        self.sound = tuple(cost for cost in costs if cost.problem is None)
        if not self.sound:
            raise RunError(f"no architecture of the space can be trained: {costs[0].problem}")

    def epoch_seconds(self, train: TrainConfig) -> float:
        """Seconds of an epoch of the measured training whose settings are nearest."""
        return min(self.sound, key=lambda cost: distance(train, cost.settings)).epoch_seconds


def architectures(config: SearchConfig) -> tuple[Params, ...]:
    """One choice of COSTLY settings for each training of the space that costs something else.

    Where trainings unfreeze what they have frozen, they are measured as they are from then on.
    """
    train, space = config.train, _with_few_values(config.space)
    if train.unfreeze_epoch is not None or "unfreeze_epoch" in space:
        train = train.model_copy(update={"freeze": "none"})
        space = {path: one for path, one in space.items() if path != "freeze"}
    return combinations(train, space, COSTLY)


def architecture_name(settings: Params, space: Space) -> str:
    """The architecture in words, such as 'sg_former_b0 at 224 pixels, batches of 64'."""
    model, side, batch, *others = settings.items()
    more = [f"{path.rpartition('.')[2]} {value}" for path, value in others if path in space]
    return ", ".join([f"{model[1]} at {side[1]} pixels", f"batches of {batch[1]}", *more])


def profiled(
    config: SearchConfig, folder: ImageFolder, resources: TrialResources, address: str | None
) -> Generator[Cost]:
    """Measures each of `architectures`, in this process or with a trial's resources on a cluster.

    Args:
        config: The config of the search.
        folder: Its images.
        resources: What a trial takes.
        address: HOST:PORT of a Ray cluster; None: this process measures.

    Raises:
        InputError: A training cannot be made, or no image can be read.
        RunError: A training broke.
    """
    from sgformer.data.few_images import few_images

    few = few_images(folder, NUM_IMAGES)
    if address is None:
        yield from measured(config, few, resources)
        return
    with connected(address):
        yield from measured_on_cluster(config, few, resources)


def measured_on_cluster(
    config: SearchConfig, few: "FewImages", resources: TrialResources
) -> Generator[Cost]:
    """Measures each of `architectures` in one task on the connected Ray, as `measured` does."""
    yield from run_on_cluster(measured, (config, few, resources), resources, "the profile")


def measured(config: SearchConfig, few: "FewImages", resources: TrialResources) -> Generator[Cost]:
    """Trains some steps of each of `architectures` in this process, one after the other.

    Of a trial that several processes train, one process's share of the batches is trained.

    Raises:
        InputError: A training cannot be made, or no image can be read.
    """
    import torch

    from sgformer.training.device import limit_memory, limit_threads, release_memory

    config, num_threads = with_common_decode_size(config), torch.get_num_threads()
    torch.set_num_threads(resources.cpus)
    limit_threads()
    limit_memory(resources.gpus)
    with tempfile.TemporaryDirectory(prefix="sgformer-profile-") as cache:
        try:
            for settings in architectures(config):
                train = apply_params(config.train, settings, "space")
                yield _cost(train, settings, few, resources, Path(cache))
                release_memory()
        finally:
            limit_memory(1)
            torch.set_num_threads(num_threads)


def _cost(
    train: TrainConfig, settings: Params, few: "FewImages", resources: TrialResources, cache: Path
) -> Cost:
    from sgformer.training.device import choose_device
    from sgformer.training.trainer import Trainer

    probe = _probe(train, resources)
    most_val = NUM_EVAL_BATCHES * probe.optimizer.batch_size
    data = few.decoded(probe.data, cache, most_val)
    trainer, device = Trainer(probe, data), choose_device(probe)
    place = f"{device.type} of {socket.gethostname()}"
    try:
        step_seconds, utilization = _time_steps(trainer, device)
        image_seconds = _time_evaluation(trainer, device) / len(data.samples("val"))
    except OutOfMemoryError as error:
        return Cost(settings, math.nan, 0, place, 0, problem=str(error))
    num_val = min(train.eval_images or few.num_val, few.num_val) / resources.num_processes
    seconds = _num_steps(train, data) * step_seconds + num_val * image_seconds
    memory, size, num_at_a_time = _memory(device), None, trainer.micro_batches.size
    if device.type == "cuda":
        import torch

        size = torch.cuda.get_device_properties(device).total_memory
    return Cost(settings, seconds, memory, place, num_at_a_time, size, utilization)


def _probe(train: TrainConfig, resources: TrialResources) -> TrainConfig:
    """The training without weights to start from, whose epoch does not end while it is timed."""
    train = train.resolved()  # preprocessing may be that of the weights, which are not loaded
    model = train.model.model_copy(update={"pretrained": False, "checkpoint": None})
    size = max(1, train.optimizer.batch_size // resources.num_processes)
    optimizer = train.optimizer.model_copy(update={"batch_size": size})
    update = {
        "model": model,
        "optimizer": optimizer,
        "epoch_images": NEVER_ENDS * size,
        "eval_images": None,
        "device": "cpu" if resources.gpus == 0 else train.device,
    }
    return train.model_copy(update=update)


def _time_steps(trainer: "Trainer", device: "torch.device") -> tuple[float, float | None]:
    """Seconds of a step, its images' loading included, and the GPU's utilisation, 0..1."""
    from sgformer.training.device import gpu_utilization

    num, busy = 0, list[float]()
    with contextlib.closing(trainer.parts()) as parts:  # type: ignore[type-var]  # a generator
        begin = _now(device)
        for _ in range(NUM_WARM_UP):
            next(parts)
            if _now(device) - begin > SECONDS_OF_STEPS:
                break
        begin = _now(device)
        while num == 0 or (num < MOST_STEPS and time.perf_counter() < begin + SECONDS_OF_STEPS):
            next(parts)
            num += 1
            if time.perf_counter() > begin + SECONDS_OF_NVML:
                busy += gpu_utilization(device)
        seconds = (_now(device) - begin) / num
    return seconds, sum(busy) / len(busy) if busy else None


def _time_evaluation(trainer: "Trainer", device: "torch.device") -> float:
    """Seconds of an evaluation on the few val images."""

    def once() -> float:
        begin = _now(device)
        trainer.evaluate("val")
        return _now(device) - begin

    seconds = once()
    return seconds if seconds > QUICK_SECONDS else once()


def _now(device: "torch.device") -> float:
    """Seconds of a clock, when the device has done what it was told."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: "torch.device") -> int:
    """Bytes that the process has taken: of the GPU, with what CUDA itself takes, or of memory."""
    from sgformer.training.device import CONTEXT_BYTES, peak_memory_bytes

    if device.type != "cuda":
        return peak_memory_bytes(device)
    import torch

    return torch.cuda.max_memory_reserved(device) + CONTEXT_BYTES


def _num_steps(train: TrainConfig, data: "ImageData") -> int:
    from sgformer.data.replay import train_samples
    from sgformer.training.train_pass import EpochSteps

    return len(EpochSteps(train, train_samples(data, train.extension)).of(1))


def _with_few_values(space: Space) -> dict[str, Parameter]:
    """The space, in which a costly setting of a long range has a few values."""
    few = dict(space)
    for path in COSTLY:
        parameter = space.get(path)
        if parameter is None or isinstance(parameter, CategoricalParameter):
            continue
        values = listed_values(parameter) or parameter.examples()
        if len(values) > MOST_VALUES:
            values = (values[0], values[len(values) // 2], values[-1])
        few[path] = CategoricalParameter(type="categorical", choices=values, when=parameter.when)
    return few


def distance(train: TrainConfig, settings: Params, *, of_less: float = 1.0) -> float:
    """How far a training's settings are from measured ones: numbers by their ratio.

    Anything that is not a number counts more than that. A number of which less was measured than
    the training has counts `of_less` times.
    """
    return sum(_gap(value_at(train, path), there, of_less) for path, there in settings.items())


def _gap(here: object, measured: object, of_less: float) -> float:
    both = (here, measured)
    numbers = [x for x in both if isinstance(x, (int, float)) and not isinstance(x, bool) and x]
    if len(numbers) == 2:
        gap = math.log(numbers[0] / numbers[1])
        return gap * of_less if gap > 0 else -gap
    return 0.0 if here == measured else 1000.0
