"""The micro-batches with which trainings ended, so that later ones need not find them again."""

from dataclasses import replace
from typing import Any, Final

from hpo.execution.training import Training
from sgformer.catalog import model_facts
from sgformer.config import TrainConfig

# The settings on which the memory of a training depends most.
ARCHITECTURE: Final = ("precision", "grad_checkpointing", "freeze", "ema_decay")


class KnownMicroBatches:
    """The last micro-batch of each architecture whose training ran out of memory.

    Each worker process keeps its own: whether a micro-batch fits depends on the GPU, and on what
    else runs there. A model with BatchNorm, whose result depends on the micro-batches, has none:
    the result would depend on what the worker has trained before.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[Any, ...], int] = {}

    def apply_to(self, training: Training) -> Training:
        """The training, which begins with the micro-batch known for its architecture, if any."""
        known = self._sizes.get(_key(training.config))
        return training if known is None else replace(training, micro_batch_size=known)

    def note(self, config: TrainConfig, size: int) -> None:
        """Notes the micro-batch of a training that may have run out of memory."""
        asked = config.optimizer.micro_batch_size or config.optimizer.batch_size
        if size < asked and not model_facts(config.model.name).has_batch_norm:
            self._sizes[_key(config)] = size


def _key(config: TrainConfig) -> tuple[Any, ...]:
    others = (getattr(config, name) for name in ARCHITECTURE)
    return (config.model.name, config.data.image_size, config.optimizer.batch_size, *others)
