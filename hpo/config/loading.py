"""Reads a search file with its overrides, and writes a config as YAML."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpo.config.absolute_paths import relative_paths, with_absolute_paths
from hpo.config.clipping import clip
from hpo.config.freeze_checks import check_freezing, notes_on_freezing
from hpo.config.schema import SearchConfig, StudyConfig
from hpo.config.space_checks import check_guess, check_space
from sgformer.errors import ConfigError
from sgformer.validation import nearest_known, validate


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
