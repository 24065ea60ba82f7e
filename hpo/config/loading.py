"""Reads a search file with its overrides, writes a config as YAML, and compares two configs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from hpo.config.absolute_paths import relative_paths, with_absolute_paths
from hpo.config.combinations import grid_points
from hpo.config.freeze_checks import check_freezing, notes_on_freezing
from hpo.config.model_checks import common_decode_size
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig, SearchConfig, StudyConfig
from hpo.config.search_space import apply_params, value_at
from hpo.config.space_checks import check_guess, check_space
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError
from sgformer.validation import nearest_known, validate

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


def load_search_config(
    path: Path | str,
    overrides: Iterable[str] = (),
    data_dir: Path | str | None = None,
    name: str | None = None,
) -> tuple[SearchConfig, tuple[str, ...]]:
    """Reads and checks a search file; returns the config, and a note on each adjusted setting.

    Args:
        path: The YAML file.
        overrides: Settings in place of the file's values, each 'path=value' as in `--set`.
        data_dir: Replaces train.data.data_dir, the folder of images.
        name: Replaces study.name; where both are missing, the study is named after the file.

    Raises:
        ConfigError: The file cannot be read, or a setting in it is wrong.

    Example:
        ```python
        from hpo import load_search_config

        config, notes = load_search_config(
            "search_spaces/digits.yaml", ["study.num_trials=20"], data_dir="digits"
        )
        for note in notes:
            print(note)
        print(config.study.num_trials, config.train.max_epochs, sorted(config.space))
        ```
    """
    source = str(path)
    config = with_absolute_paths(_read(Path(path), overrides, data_dir, name), source)
    config, notes = clip(config)
    check_space(config.train, config.space, source)
    shortest = min(config.train.max_epochs, config.fresh_epochs)
    check_freezing(config.train, config.space, shortest, source)
    for params in config.study.enqueue:
        check_guess(params, config.space, "study.enqueue", source)
    return config, (*notes, *notes_on_freezing(config.train, config.space))


def check_paths_absolute(
    path: Path | str, overrides: Iterable[str] = (), data_dir: Path | str | None = None
) -> None:
    """Raises ConfigError for a relative path of the search, whose files are on other machines.

    The arguments are those of `load_search_config`.
    """
    relative = relative_paths(_read(Path(path), overrides, data_dir, None))
    if relative:
        found = ", ".join(f"{setting} is {value!r}" for setting, value in relative)
        raise ConfigError(
            f"paths on a cluster's nodes must be absolute, but {found} (--set, --data-dir, {path})"
        )


def dump_search_config(config: SearchConfig) -> str:
    """The config as YAML text, from which `load_search_config` reads an equal config."""
    values = config.model_dump(mode="json")
    for parameter in values["space"].values():
        if not parameter["when"]:
            del parameter["when"]
    return yaml.safe_dump(values, sort_keys=False, width=99)


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


def _read(
    path: Path, overrides: Iterable[str], data_dir: Path | str | None, name: str | None
) -> SearchConfig:
    """The file's config with the overrides, and a name; its paths are as they are written."""
    values = _read_yaml(path)
    for override in overrides:
        _set(values, override)
    if data_dir is not None:
        _set_value(values, ["train", "data", "data_dir"], str(data_dir))
    if name is not None:
        _set_value(values, ["study", "name"], name)
    return _with_name(validate(SearchConfig, values, str(path)), path.stem)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping with a repeated key, where PyYAML would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    problem = f"{key.value!r} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                known.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ConfigError(f"search file is a folder: {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read search file {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # an impossible date raises ValueError
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} is not a search file: expected sections such as study, space and train, "
            f"got {type(values).__name__}"
        )
    return values


def _set(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set takes path=value, got {override!r}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"--set {path}: the value is not YAML: {text!r}") from None
    parts = _split_path(values, path)
    _check_new_parameter(values, parts, value)
    _set_value(values, parts, value)


def _split_path(values: Mapping[str, Any], path: str) -> list[str]:
    """Splits a dotted path into parts; the dotted name of a searched parameter is one part."""
    section, _, rest = path.partition(".")
    space = values.get("space")
    if section != "space" or not rest or not isinstance(space, dict):
        return path.split(".")
    for name in space:
        if rest == name:
            return [section, name]
        if rest.startswith(f"{name}."):
            return [section, name, *rest.removeprefix(f"{name}.").split(".")]
    return [section, rest]


def _check_new_parameter(values: Mapping[str, Any], path: Sequence[str], value: object) -> None:
    """Raises ConfigError if a parameter that is new in the space is not given as a mapping."""
    space = values.get("space")
    if path[0] != "space" or len(path) != 2 or not isinstance(space, dict):
        return
    if path[1] not in space and not isinstance(value, dict):
        raise ConfigError(
            f"--set {'.'.join(path)}: no such searched parameter; "
            f"{nearest_known(path[1], space)}; a new one is given whole, "
            "as in --set 'space.NAME={type: float, low: 0, high: 1}'"
        )


def _set_value(values: dict[str, Any], path: Sequence[str], value: object) -> None:
    for i, part in enumerate(path[:-1]):
        below = values.setdefault(part, {})
        if below is None:
            below = values[part] = {}
        if not isinstance(below, dict):
            raise ConfigError(
                f"{'.'.join(path)}: {'.'.join(path[: i + 1])} is {below!r}, not a section (--set)"
            )
        values = below
    values[path[-1]] = value


def _with_name(config: SearchConfig, default: str) -> SearchConfig:
    """The config, in which a study without a name has the default."""
    study = config.study
    if not study.name:
        study = validate(StudyConfig, {**study.model_dump(), "name": default}, "study.name")
    return config.model_copy(update={"study": study})


def clip(config: SearchConfig) -> tuple[SearchConfig, tuple[str, ...]]:
    """Clips settings that exceed max_epochs, the grid or num_trials; a note tells of each change.

    Raises:
        ConfigError: The sampler is grid, and the space has continuous parameters, or too many
            configurations.
    """
    notes: list[str] = []
    clipped = {
        "train": _clip_warmup(config, notes),
        "scheduler": _clip_min_epochs(config, notes),
        "study": _clip_guesses(_clip_to_grid(config, notes), notes),
    }
    return config.model_copy(update=clipped), tuple(notes)


def _clip_warmup(config: SearchConfig, notes: list[str]) -> TrainConfig:
    train = config.train.with_epochs(config.train.max_epochs)
    if train != config.train:
        notes.append(
            f"train.optimizer.warmup_epochs: {config.train.optimizer.warmup_epochs:g} clipped to "
            f"{train.optimizer.warmup_epochs:g}, half of max_epochs"
        )
    return train


def _clip_min_epochs(config: SearchConfig, notes: list[str]) -> SchedulerConfig:
    """The scheduler with a first rung below max_epochs.

    A missing min_epochs gets its default, unless learning curves are to choose the first rung.
    """
    scheduler, max_epochs = config.scheduler, config.train.max_epochs
    if scheduler.name == "none":
        return scheduler
    may_be_chosen = bool(config.study.warm_start) and max_epochs > DEFAULT_MIN_EPOCHS
    if scheduler.min_epochs is None and scheduler.name != "freeze_thaw" and not may_be_chosen:
        scheduler = scheduler.model_copy(update={"min_epochs": DEFAULT_MIN_EPOCHS})
    if scheduler.min_epochs is None or scheduler.min_epochs < max_epochs:
        return scheduler
    low = max(1, max_epochs // scheduler.reduction_factor)
    if low < scheduler.min_epochs:
        notes.append(
            f"scheduler.min_epochs: {scheduler.min_epochs} clipped to {low}, below max_epochs"
        )
    return scheduler.model_copy(update={"min_epochs": low})


def _clip_guesses(study: StudyConfig, notes: list[str]) -> StudyConfig:
    """The unchanged study; a note tells how many guesses `num_trials` has room for, if not all."""
    num_guesses = min(len(study.enqueue), max(0, study.num_trials - 1))
    if num_guesses < len(study.enqueue):
        notes.append(
            f"study.enqueue: {num_guesses} of {len(study.enqueue)} guesses will be tried: "
            f"study.num_trials is {study.num_trials}, with the default"
        )
    return study


def _clip_to_grid(config: SearchConfig, notes: list[str]) -> StudyConfig:
    """The study, with num_trials clipped to the number of grid points for sampler grid."""
    study = config.study
    if study.sampler != "grid":
        return study
    num_points = len(grid_points(config.space))
    if study.num_trials <= num_points:
        return study
    notes.append(f"study.num_trials: {study.num_trials} clipped to {num_points}, the whole grid")
    return study.model_copy(update={"num_trials": num_points})


def flat_settings(values: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Pairs of dotted path and value of nested settings."""
    if not isinstance(values, dict):
        return [(prefix, values)]
    items = (flat_settings(v, f"{prefix}.{k}" if prefix else k) for k, v in values.items())
    return [pair for group in items for pair in group]
