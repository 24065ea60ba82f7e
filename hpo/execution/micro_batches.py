"""The micro-batches with which trainings ended, so that later ones need not find them again."""

from dataclasses import replace
from typing import Any, Final

from hpo.execution.training import Training
from sgformer.config import TrainConfig

# The settings on which the memory of a training depends most.
ARCHITECTURE: Final = ("precision", "grad_checkpointing", "freeze", "ema_decay")


class KnownMicroBatches:
    """The last micro-batch of each architecture whose training ran out of memory.

    Each worker process keeps its own: whether a micro-batch fits depends on the GPU, and on what
    else runs there.
    """

    def __init__(self) -> None:
        self._sizes: dict[tuple[Any, ...], int] = {}

    def apply_to(self, training: Training) -> Training:
        """The training, which begins with the micro-batch known for its architecture, if any."""
        known = self._sizes.get(_key(training.config))
        if known is None:
            return training
        optimizer = training.config.optimizer
        size = min(known, optimizer.micro_batch_size or known)
        optimizer = optimizer.model_copy(update={"micro_batch_size": size})
        return replace(
            training, config=training.config.model_copy(update={"optimizer": optimizer})
        )

    def note(self, config: TrainConfig, size: int) -> None:
        """Notes the micro-batch of a training that may have run out of memory."""
        asked = config.optimizer.micro_batch_size or config.optimizer.batch_size
        if size < asked:
            self._sizes[_key(config)] = size


def _key(config: TrainConfig) -> tuple[Any, ...]:
    others = (getattr(config, name) for name in ARCHITECTURE)
    return (config.model.name, config.data.image_size, config.optimizer.batch_size, *others)
