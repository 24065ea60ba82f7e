"""Checks the frozen stages that a search file asks for against its models and lengths."""

from typing import Final

from hpo.config.combinations import combinations
from hpo.config.search_space import Space, Value
from sgformer.catalog import is_ours
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

SG_FORMER_STAGES: Final = 4
SOURCES: Final = ("model.pretrained", "model.checkpoint")
MODEL, FREEZE, EPOCH = "model.name", "freeze", "unfreeze_epoch"


def check_freezing(base: TrainConfig, space: Space, num_epochs: int, source: str) -> None:
    """Checks `freeze` and `unfreeze_epoch`, set or searched, for each model of the search.

    Args:
        base: The default configuration.
        space: The search space.
        num_epochs: The length of the search's shortest full training.
        source: The search file, for messages.

    Raises:
        ConfigError: A model has fewer stages than are to be frozen; or weights would join that
            are not frozen, or after the training's end.
    """
    for params in combinations(base, space, (MODEL, FREEZE, EPOCH)):
        name, freeze, epoch = params.values()
        _check_stages(str(name), str(freeze), _where(FREEZE, freeze, space), source)
        if isinstance(epoch, int):
            is_idle = freeze == "none" and FREEZE not in space
            _check_epoch(epoch, num_epochs, is_idle, _where(EPOCH, epoch, space), source)


def notes_on_freezing(base: TrainConfig, space: Space) -> tuple[str, ...]:
    """A note if weights are frozen, and no trial starts from weights that are worth freezing."""
    trials = combinations(base, space, (FREEZE, *SOURCES))
    if all(params[FREEZE] == "none" for params in trials):
        return ()
    if any(params[source] for params in trials for source in SOURCES):
        return ()
    where = f"{'space' if FREEZE in space else 'train'}.{FREEZE}"
    return (
        f"{where}: no trial starts from model.pretrained or model.checkpoint, so the frozen "
        "weights stay as they are newly initialised, at random",
    )


def _where(path: str, value: Value, space: Space) -> str:
    """The setting's path in the search file, in the section that the value comes from."""
    return f"{'space' if path in space and space[path].contains(value) else 'train'}.{path}"


def _check_epoch(epoch: int, num_epochs: int, is_idle: bool, where: str, source: str) -> None:
    if is_idle:
        raise ConfigError(
            f"{where}: nothing is frozen, so nothing can join at epoch {epoch}; set train.freeze "
            f"to backbone or stages_N, or leave unfreeze_epoch out ({source})"
        )
    if epoch > num_epochs:
        raise ConfigError(
            f"{where}: frozen weights would join after the training's end; at most {num_epochs}, "
            f"the length of a training (train.max_epochs, retrain.max_epochs), got {epoch} "
            f"({source})"
        )


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
