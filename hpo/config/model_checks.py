"""Checks that the models of a search take their image sizes, dropout rates, batches and more.

For SG-Former this needs no torch; any other model is asked of timm.
"""

from collections.abc import Iterable

from hpo.config.combinations import combinations
from hpo.config.search_space import (
    ARCHITECTURE,
    Space,
    apply_params,
    is_active,
)
from sgformer.catalog import (
    RATES,
    check_image_size,
    is_ours,
    model_facts,
    on_no_linear_head,
)
from sgformer.config import ModelConfig, TrainConfig
from sgformer.errors import ConfigError

NAME, SIZE = ARCHITECTURE
CROP = "data.crop_pct"
BATCH = "optimizer.batch_size"


def check_models(base: TrainConfig, space: Space, source: str) -> None:
    """Checks every model of a search with the settings that it can have in a trial.

    Raises:
        ConfigError: A model is unknown or no classifier, or takes not all of its image sizes,
            dropout rates or batches, has no gradient checkpointing, or takes no features; the
            message names the setting and `source`.
    """
    _check_names(base, space, source)
    _check_architectures(base, space, source)
    for rate in RATES:
        path = f"model.{rate}"
        if path in space:
            _check_searched_rate(rate, base, space, source)
        else:
            _check_fixed_rate(rate, base, space, source)
    _check_batches(base, space, source)
    _check_grad_checkpointing(base, space, source)
    _check_heads(base, space, source)


def common_decode_size(base: TrainConfig, space: Space) -> int | None:
    """The size to which images are decoded for all trials: the largest that a trial needs.

    None: all trials need the same, or the config sets a size.
    """
    if base.data.decode_size is not None:
        return None
    needed = {
        apply_params(base, params, "the space").resolved().data.decoded_pixels
        for params in combinations(base, space, (*ARCHITECTURE, CROP))
    }
    return max(needed) if len(needed) > 1 else None


def _check_names(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that each model is known, and a classifier."""
    for params in combinations(base, space, (NAME,)):
        name = params[NAME]
        try:
            model_facts(str(name))
        except ConfigError as error:
            is_searched = NAME in space
            where = f"space.{NAME}: does not allow {name!r}" if is_searched else f"train.{NAME}"
            raise ConfigError(f"{where}: {_with_source(str(error), source)}") from None


def _check_architectures(base: TrainConfig, space: Space, source: str) -> None:
    """Checks each pair of model and image size that a trial can have."""
    for params in combinations(base, space, ARCHITECTURE):
        name, size = params.values()
        try:
            train = apply_params(base, params, source)
            if not is_ours(train.model.name):
                check_image_size(train.model.name, train.data.image_size)
        except ConfigError as error:
            where = _what_allows(base, space, name, size)
            raise ConfigError(f"{where}{_with_source(str(error), source)}") from None


def _what_allows(base: TrainConfig, space: Space, name: object, size: object) -> str:
    """The beginning of the message about a pair: the setting to change, and the values."""
    if SIZE in space and size != base.data.image_size:
        beside = f" with {NAME}={name}" if NAME in space else ""
        return f"space.{SIZE}: does not allow {size!r}{beside}: "
    if NAME in space and name != base.model.name:
        return f"space.{NAME}: does not allow {name!r}: "
    return f"train.{SIZE}: "


def _with_source(message: str, source: str) -> str:
    return message if message.endswith(f"({source})") else f"{message} ({source})"


def _check_searched_rate(rate: str, base: TrainConfig, space: Space, source: str) -> None:
    """Checks that each model beside which a dropout rate is searched takes it."""
    path = f"model.{rate}"
    names = _names(base, space, path, searched=True)
    without = _names_without(rate, names)
    if not without:
        return
    others = [name for name in names if name not in without]
    if others and NAME in space and not space[NAME].when:
        remedy = (
            f"search it only for the other{'s' if len(others) > 1 else ''}: "
            f"when: {{{NAME}: [{', '.join(others)}]}}"
        )
    else:
        remedy = f"{_taken_by(without)}; leave it out"
    raise ConfigError(f"space.{path}: {_take_no(without)} {rate}; {remedy} ({source})")


def _check_fixed_rate(rate: str, base: TrainConfig, space: Space, source: str) -> None:
    """Checks that each model takes a dropout rate that is set to more than 0 or the default."""
    value = getattr(base.model, rate)
    if value in (0, ModelConfig.model_fields[rate].default):
        return
    names = _names(base, space, f"model.{rate}", searched=False)
    without = _names_without(rate, names)
    if not without:
        return
    others = [name for name in names if name not in without]
    remedy = "set it to 0"
    if others:
        remedy += f", or search it for the others: when: {{{NAME}: [{', '.join(others)}]}}"
    raise ConfigError(
        f"train.model.{rate}: is {value:g}, but {_take_no(without)} {rate} "
        f"({_taken_by(without)}); {remedy} ({source})"
    )


def _check_batches(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that no model with BatchNorm gets a batch of one image."""
    for section, is_one in (
        ("space", BATCH in space and space[BATCH].contains(1)),
        ("train", base.optimizer.batch_size == 1),
    ):
        names = _names(base, space, BATCH, searched=section == "space") if is_one else []
        for name in names:
            if model_facts(name).has_batch_norm:
                raise ConfigError(
                    f"{section}.{BATCH}: does not allow 1 with {name}, whose BatchNorm takes the "
                    f"statistics of a batch: at least 2 images ({source})"
                )


def _check_grad_checkpointing(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that each model can do without kept activations if it has to."""
    if not base.grad_checkpointing:
        return
    names = _names(base, space, "grad_checkpointing", searched=False)
    without = [name for name in names if not model_facts(name).has_grad_checkpointing]
    if without:
        raise ConfigError(
            f"train.grad_checkpointing: is true, but {_and(without)} "
            f"{'has' if len(without) == 1 else 'have'} no gradient checkpointing; set it to "
            f"false, or take other models ({source})"
        )


def _check_heads(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that features can join an image's before each model's head, if there are any."""
    names = [str(one[NAME]) for one in combinations(base, space, (NAME,))]
    for name in names if base.data.features is not None else ():
        if not model_facts(name).has_linear_head:
            where = "space" if NAME in space else "train"
            raise ConfigError(f"{where}.{NAME}: {on_no_linear_head(name)} ({source})")


def _names(base: TrainConfig, space: Space, path: str, *, searched: bool) -> list[str]:
    """The models in trials in which the setting is searched, or in those in which it is not."""
    if path not in space:
        return [] if searched else [str(p[NAME]) for p in combinations(base, space, (NAME,))]
    paths = tuple(dict.fromkeys([NAME, *space[path].when]))
    found = combinations(base, space, paths)
    names = (str(params[NAME]) for params in found if is_active(space[path], params) == searched)
    return list(dict.fromkeys(names))


def _names_without(rate: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if rate not in model_facts(name).rates]


def _take_no(names: list[str]) -> str:
    """The models as the beginning of a sentence, such as 'resnet18 and resnet34 take no'."""
    return f"{names[0]} takes no" if len(names) == 1 else f"{_and(names)} take no"


def _taken_by(names: list[str]) -> str:
    """The dropout rates of `RATES` that all of these models take, in words."""
    taken = [rate for rate in RATES if all(rate in model_facts(n).rates for n in names)]
    return f"{'it takes' if len(names) == 1 else 'they take'} {_and(taken) or 'none'}"


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
