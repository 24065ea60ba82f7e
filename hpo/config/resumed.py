"""What a resumed run may change of its configuration, and what it keeps of the old one."""

from collections.abc import Iterable
from typing import Any, Final

from hpo.config.model_checks import common_decode_size
from hpo.config.schema import SearchConfig
from hpo.config.search_space import apply_params, value_at
from sgformer.config import TrainConfig

# Settings that a resumed run may change; its old and new trials stay comparable.
CHANGEABLE: Final = (
    "study.num_trials",
    "study.max_retries",
    "study.select",
    "study.deliver_to",
    "budget",
    "resources",
    "retrain",
    "export",
    "extension",
    "report",
    "tracking",
    "train.device",
    "train.data.data_dir",
    "train.data.features",
    "train.data.text_encoder",
    "train.data.num_workers",
    "train.data.cache_dir",
    "train.data.cache_bytes",
    "train.data.cache_format",
    "train.optimizer.micro_batch_size",
    "train.grad_checkpointing",
)
# Costs of the exported files, of which trials must have those of the same format.
COSTS_OF_FILES: Final = frozenset({"latency_ms", "bytes", "int8_top1_drop"})
# Settings whose default has changed, with the default of the first release. A run that began with
# that default goes on with it.
FORMER_DEFAULTS: Final[dict[str, Any]] = {
    "precision": "float32",
    "channels_last": False,
    "data.crop_pct": 0.875,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
}


def differences(old: SearchConfig, new: SearchConfig) -> tuple[str, ...]:
    """The settings that a resumed run may not change but that differ, as 'path: old -> new'."""
    before, after = (dict(flat_settings(c.model_dump(mode="json"))) for c in (old, new))
    kept = {"export.int8"} if COSTS_OF_FILES & {*old.study.costs} else set()
    return tuple(
        f"{path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
        and (path in kept or not any(f"{path}.".startswith(f"{may}.") for may in CHANGEABLE))
    )


def with_former_defaults(old: SearchConfig, new: SearchConfig) -> SearchConfig:
    """The new config, in which settings at their default keep the old run's former default.

    A size to which images are decoded that was not chosen stays the old run's, too.
    """
    new = _with_decode_size_of(old, new)
    former = {
        path: value
        for path, value in FORMER_DEFAULTS.items()
        if value_at(old.train, path) == value
        and value_at(new.train, path) == value_at(TrainConfig(), path)
    }
    if not former:
        return new
    return new.model_copy(update={"train": apply_params(new.train, former, "a former run")})


def with_common_decode_size(config: SearchConfig) -> SearchConfig:
    """The config of a new search, in which one set of decoded images serves all trials."""
    size = common_decode_size(config.train, config.space)
    return config if size is None else _with_decode_size(config, size)


def _with_decode_size_of(old: SearchConfig, new: SearchConfig) -> SearchConfig:
    size, own = old.train.data.decode_size, new.train.data.decode_size
    needed = common_decode_size(_with_decode_size(new, None).train, new.space)
    if own not in (None, needed):
        return new  # the user has chosen it
    is_enough = size is None or size >= (needed or 0)
    return _with_decode_size(new, size if is_enough else needed)


def _with_decode_size(config: SearchConfig, size: int | None) -> SearchConfig:
    data = config.train.data.model_copy(update={"decode_size": size})
    train = config.train.model_copy(update={"data": data})
    return config.model_copy(update={"train": train})


def flat_settings(values: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Pairs of dotted path and value of nested settings."""
    if not isinstance(values, dict):
        return [(prefix, values)]
    items = (flat_settings(v, f"{prefix}.{k}" if prefix else k) for k, v in values.items())
    return [pair for group in items for pair in group]
