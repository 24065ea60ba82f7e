"""Checks the frozen stages that a search file asks for against its models and lengths."""

from collections.abc import Iterator
from typing import Final

from hpo.config.search_space import Space, Value
from sgformer.catalog import is_ours
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

SG_FORMER_STAGES: Final = 4


def check_freezing(base: TrainConfig, space: Space, num_epochs: int, source: str) -> None:
    """Checks `freeze` and `unfreeze_epoch`, set or searched.

    Args:
        base: The default configuration.
        space: The search space.
        num_epochs: The length of the search's shortest full training.
        source: The search file, for messages.

    Raises:
        ConfigError: A model of the search has fewer stages than are to be frozen, or weights
            would join that are not frozen, or after the training's end.
    """
    models = _values(base.model.name, space, "model.name")
    for name in dict.fromkeys(models):
        for where, freeze in _freezes(base, space, str(name)):
            _check_stages(str(name), freeze, where, source)
    _check_epoch(base, space, num_epochs, source)


def _check_stages(name: str, freeze: str, where: str, source: str) -> None:
    if not freeze.startswith("stages_"):
        return
    available = SG_FORMER_STAGES if is_ours(name) else _num_stages(name)
    if int(freeze.removeprefix("stages_")) > available:
        from sgformer.model.stages import too_many_stages

        raise ConfigError(f"{where}: {too_many_stages(name, freeze, available)} ({source})")


def _num_stages(name: str) -> int:
    from sgformer.model.stages import num_stages  # imports torch, as any model of timm does

    return num_stages(name)


def _check_epoch(base: TrainConfig, space: Space, num_epochs: int, source: str) -> None:
    where = "space.unfreeze_epoch" if "unfreeze_epoch" in space else "train.unfreeze_epoch"
    epochs = [e for e in _values(base.unfreeze_epoch, space, "unfreeze_epoch") if e is not None]
    if not epochs:
        return
    if set(_values(base.freeze, space, "freeze")) == {"none"}:
        raise ConfigError(
            f"{where}: nothing is frozen, so nothing can join at epoch {epochs[0]}; set "
            f"train.freeze to backbone or stages_N, or leave unfreeze_epoch out ({source})"
        )
    latest = max(int(epoch) for epoch in epochs)
    if latest > num_epochs:
        raise ConfigError(
            f"{where}: frozen weights would join after the training's end; at most {num_epochs}, "
            f"the length of a training (train.max_epochs, retrain.max_epochs), got {latest} "
            f"({source})"
        )


def _freezes(base: TrainConfig, space: Space, name: str) -> Iterator[tuple[str, str]]:
    """The values of `freeze` that trials of a model can have, each with the setting's path."""
    parameter = space.get("freeze")
    if parameter is None or parameter.when:
        yield "train.freeze", base.freeze
    if parameter is not None and name in parameter.when.get("model.name", (name,)):
        yield from (("space.freeze", str(value)) for value in parameter.examples())


def _values(default: Value, space: Space, path: str) -> tuple[Value, ...]:
    """The values that trials can have; of a range its ends and one between."""
    parameter = space.get(path)
    return (default,) if parameter is None else parameter.examples()
