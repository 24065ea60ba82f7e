"""Checks a search space, and params against a search space; each problem is a ConfigError.

A message names the setting by its path in the search file, the value, the allowed values, and
the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hpo.config.combinations import combinations
from hpo.config.freeze_checks import SOURCES
from hpo.config.model_checks import check_models
from hpo.config.search_space import (
    ARCHITECTURE,
    CategoricalParameter,
    Parameter,
    Params,
    Space,
    Value,
    apply_params,
    default_params,
)
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.validation import fields_at, nearest_known

# Searching these settings would make trials incomparable, or would have no effect on the metric;
# or they say how images are decoded, which is done once for all trials.
UNSEARCHABLE: Final = (
    "data.data_dir",
    "data.val_fraction",
    "data.val_seed",
    "data.background",
    "data.max_value",
    "data.cache_dir",
    "data.cache_bytes",
    "data.cache_format",
    "data.decode_size",  # one decoded set serves all trials of a node
    "data.num_workers",
    "data.features",
    "data.text_encoder",
    "model.fusion.num_features",
    "distillation.teacher",
    "extension.base",
    "optimizer.micro_batch_size",
    "early_stopping.metric",
    "max_epochs",
    "epoch_images",  # an epoch of one trial would be no epoch of another
    "eval_images",
    "channels_last",
    "grad_checkpointing",
    "compile",
    "device",
    "seed",
)


# What an extension fixes: it starts from its base, as the base is.
STARTS: Final = ("model.name", "model.pretrained", "model.checkpoint")


def searchable_paths() -> tuple[str, ...]:
    """The dotted path of every setting of TrainConfig that can be searched."""
    return tuple(path for path in _all_paths() if path not in UNSEARCHABLE)


def check_space(base: TrainConfig, space: Space, source: str) -> None:
    """Checks each parameter's path, range and condition, the models, and the default's params.

    Raises:
        ConfigError: A check failed; the message names `source`.
    """
    _check_has_teacher(base, space, source)
    _check_has_base(base, space, source)
    _check_has_features(base, space, source)
    for path, parameter in space.items():
        _check_path(path, source)
        _check_when(path, parameter, space, source)
        # `check_models` checks each architecture whole: a size may be for some models only.
        if path not in ARCHITECTURE:
            _check_examples(path, parameter, base, source)
        _check_warmup(path, parameter, base, source)
    _check_sources(base, space, source)
    check_models(base, space, source)
    check_params(default_params(base, space), space, "train", source)


def check_params(params: Mapping[str, Value], space: Space, where: str, source: str) -> None:
    """Checks that the params of the default configuration, trial 0, lie in the space.

    Raises:
        ConfigError: A value lies outside; the message names `where` and `source`.
    """
    reason = "the default configuration is the first trial, so "
    for path, value in params.items():
        _check_value(path, value, space, where, source, reason)


def check_guess(params: Mapping[str, Value], space: Space, where: str, source: str) -> None:
    """Checks that a guess from `study.enqueue` sets only active parameters of the space.

    Raises:
        ConfigError: The guess is empty, or sets a parameter that is not searched, out of range
            or inactive.
    """
    if not params:
        raise ConfigError(
            f"{where}: a guess sets no parameter; set one of {', '.join(space)}, or leave it out "
            f"({source})"
        )
    for path, value in params.items():
        _check_value(path, value, space, where, source)
        for other, values in space[path].when.items():
            if params.get(other) not in values:
                said = f"sets it to {params[other]!r}" if other in params else "leaves it out"
                raise ConfigError(
                    f"{where}.{path}: counts only when {other} is one of "
                    f"{', '.join(map(str, values))}, and the guess {said}; set it to one of them, "
                    f"or leave {path} out ({source})"
                )


def _check_value(
    path: str, value: Value, space: Space, where: str, source: str, reason: str = ""
) -> None:
    if path not in space:
        raise ConfigError(
            f"{where}.{path}: is not searched; {nearest_known(path, space)} ({source})"
        )
    if not space[path].contains(value):
        raise ConfigError(
            f"{where}.{path}: {value!r} lies outside its search space ({space[path].describe()}); "
            f"{reason}widen space.{path} or change {where}.{path} ({source})"
        )


def _check_examples(path: str, parameter: Parameter, base: TrainConfig, source: str) -> None:
    """Checks that a training takes the parameter's values, where its condition holds."""
    conditions: list[Params] = [
        {other: value}
        for other, values in parameter.when.items()
        for value in values
        if other not in ARCHITECTURE
    ]
    for value in parameter.examples():
        for beside in conditions or [{}]:
            try:
                apply_params(base, {**beside, path: value}, source)
            except ConfigError as error:
                raise ConfigError(f"space.{path}: does not allow {value!r}: {error}") from None


def _check_sources(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that no trial asks for two sources of weights at once."""
    for params in combinations(base, space, SOURCES):
        if all(params.values()):
            searched = next((path for path in reversed(SOURCES) if path in space), SOURCES[1])
            raise ConfigError(
                f"space.{searched}: a trial may ask for pretrained weights and for "
                f"{params[SOURCES[1]]!r} at once; search model.checkpoint only where "
                f"model.pretrained is false: when: {{model.pretrained: [false]}} ({source})"
            )


def _check_has_teacher(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that a distillation that is searched has a teacher."""
    searched = next((path for path in space if path.startswith("distillation.")), None)
    if searched is not None and not base.distillation.teacher:
        raise ConfigError(
            f"space.{searched}: there is no teacher; name a model that a run delivered with "
            f"train.distillation.teacher, such as runs/x/best ({source})"
        )


def _check_has_base(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that a searched extension has a model to extend, from which all trials start."""
    searched = next((path for path in space if path.startswith("extension.")), None)
    if searched is not None and not base.extension.is_used:
        raise ConfigError(
            f"space.{searched}: no model is extended; `extend RUN --data-dir NEW --into {source}` "
            f"searches an extension, or name the model with train.extension.base ({source})"
        )
    fixed = next((path for path in STARTS if path in space), None)
    if fixed is not None and base.extension.is_used:
        raise ConfigError(
            f"space.{fixed}: cannot be searched in an extension, whose trials all start from "
            f"{base.extension.base}; leave it out ({source})"
        )


def _check_has_features(base: TrainConfig, space: Space, source: str) -> None:
    """Checks that there are features where it is searched how they are taken."""
    searched = next((path for path in space if path.startswith("model.fusion.")), None)
    if searched is not None and base.data.features is None:
        raise ConfigError(
            f"space.{searched}: there are no features; name a table of them with --features, or "
            f"train.data.features ({source})"
        )


def _check_path(path: str, source: str) -> None:
    if path in UNSEARCHABLE:
        raise ConfigError(
            f"space.{path}: cannot be searched; set train.{path} for all trials ({source})"
        )
    parts = path.split(".")
    siblings = fields_at(TrainConfig, parts[:-1])
    if parts[-1] not in siblings:
        every = tuple(_all_paths())
        raise ConfigError(
            f"space.{path}: no such setting of a training; {nearest_known(path, every)} ({source})"
        )
    if fields_at(TrainConfig, parts):
        raise ConfigError(
            f"space.{path}: is a section, not a setting; it has "
            f"{', '.join(fields_at(TrainConfig, parts))} ({source})"
        )


def _all_paths(prefix: Sequence[str] = ()) -> Iterator[str]:
    for name in fields_at(TrainConfig, prefix):
        path = (*prefix, name)
        below = fields_at(TrainConfig, path)
        yield from _all_paths(path) if below else (".".join(path),)


def _check_warmup(path: str, parameter: Parameter, base: TrainConfig, source: str) -> None:
    """Raises ConfigError if the range of warmup_epochs exceeds half of max_epochs.

    `clip` shortens the default configuration's warmup to the same limit.
    """
    most = base.max_epochs / 2
    if path != "optimizer.warmup_epochs":
        return
    for value in parameter.examples():
        if isinstance(value, (int, float)) and value > most:
            raise ConfigError(
                f"space.{path}: does not allow {value:g}: at most {most:g}, half of "
                f"train.max_epochs={base.max_epochs} ({source})"
            )


def _check_when(path: str, parameter: Parameter, space: Space, source: str) -> None:
    for other, values in parameter.when.items():
        condition = space.get(other)
        if not isinstance(condition, CategoricalParameter) or condition.when:
            raise ConfigError(
                f"space.{path}.when: {other!r} is not an unconditional categorical parameter of "
                f"the space ({source})"
            )
        unknown = [value for value in values if not condition.contains(value)]
        if unknown:
            raise ConfigError(
                f"space.{path}.when: {unknown[0]!r} is no choice of {other} "
                f"({condition.describe()}) ({source})"
            )
