"""Makes a search file's paths of images and weights absolute."""

import os
from collections.abc import Iterator
from pathlib import Path

from hpo.config.schema import SearchConfig, StudyConfig
from hpo.config.search_space import CategoricalParameter, Parameter, Value
from hpo.config.storage_url import file_of
from sgformer.config import TrainConfig
from sgformer.data_config import encoder_folder
from sgformer.errors import ConfigError

CHECKPOINT = "model.checkpoint"
TEACHER = "distillation.teacher"
BASE = "extension.base"


def with_absolute_paths(config: SearchConfig, source: str) -> SearchConfig:
    """The config with absolute paths wherever it names images, weights or MLflow's files.

    Raises:
        ConfigError: A path begins with the home of an unknown user, or two choices of
            `model.checkpoint` are the same file.
    """
    update = {
        "train": _of_train(config.train),
        "space": {path: _of_parameter(path, p, source) for path, p in config.space.items()},
        "study": _of_guesses(config.study),
        "tracking": config.tracking.absolute(),
    }
    return config.model_copy(update=update)


def relative_paths(config: SearchConfig) -> tuple[tuple[str, str], ...]:
    """Settings with a relative path, and the path; one that begins with ~ does not count.

    Args:
        config: The search as its file has it, before `with_absolute_paths`.
    """
    return tuple(
        (setting, path)
        for setting, path in _paths(config)
        if not path.startswith("~") and not Path(path).is_absolute()
    )


def _paths(config: SearchConfig) -> Iterator[tuple[str, str]]:
    data = config.train.data
    settings = {
        "train.data.data_dir": data.data_dir,
        "train.data.features": data.features,
        "train.data.text_encoder": encoder_folder(data),
        "train.data.cache_dir": data.cache_dir,
        f"train.{CHECKPOINT}": config.train.model.checkpoint,
        f"train.{BASE}": config.train.extension.base,
        "study.storage": config.study.storage and file_of(config.study.storage),
        "tracking.mlflow": config.tracking.mlflow_path,
    }
    yield from ((setting, str(path)) for setting, path in settings.items() if path)
    yield from ((f"train.{TEACHER}", str(path)) for path in config.train.distillation.teacher)
    searched = config.space.get(CHECKPOINT)
    if isinstance(searched, CategoricalParameter):
        yield from ((f"space.{CHECKPOINT}", str(path)) for path in searched.choices if path)
    for source in config.study.warm_start:
        url, hash_sign, _ = source.rpartition("#")
        path = file_of(url) if hash_sign else Path(source)
        if path is not None:
            yield "study.warm_start", str(path)


def _of_train(train: TrainConfig) -> TrainConfig:
    data, model = train.data, train.model
    if data.data_dir is not None:
        path = _absolute(data.data_dir, "train.data.data_dir", " (--data-dir)")
        data = data.model_copy(update={"data_dir": path})
    if data.features is not None:
        path = _absolute(data.features, "train.data.features", " (--features)")
        data = data.model_copy(update={"features": path})
    if (folder := encoder_folder(data)) is not None:
        path = _absolute(folder, "train.data.text_encoder")
        data = data.model_copy(update={"text_encoder": str(path)})
    if model.checkpoint is not None:
        path = _absolute(model.checkpoint, f"train.{CHECKPOINT}")
        model = model.model_copy(update={"checkpoint": path})
    teacher = tuple(_absolute(path, f"train.{TEACHER}") for path in train.distillation.teacher)
    distillation = train.distillation.model_copy(update={"teacher": teacher})
    update: dict[str, object] = {"data": data, "model": model, "distillation": distillation}
    if train.extension.base is not None:
        base = _absolute(train.extension.base, f"train.{BASE}")
        update["extension"] = train.extension.model_copy(update={"base": base})
    return train.model_copy(update=update)


def _of_parameter(path: str, parameter: Parameter, source: str) -> Parameter:
    where = f"space.{path}"
    if CHECKPOINT in parameter.when:
        values = tuple(_of_value(value, f"{where}.when") for value in parameter.when[CHECKPOINT])
        parameter = parameter.model_copy(update={"when": {**parameter.when, CHECKPOINT: values}})
    if path != CHECKPOINT or not isinstance(parameter, CategoricalParameter):
        return parameter
    choices = tuple(_of_value(value, where) for value in parameter.choices)
    # Links are not followed: a run must load also when its files have moved.
    files = {os.path.normpath(value) if isinstance(value, str) else value for value in choices}
    if len(files) < len(choices):
        raise ConfigError(
            f"{where}: choices must be different files, got {list(parameter.choices)} ({source})"
        )
    return parameter.model_copy(update={"choices": choices})


def _of_guesses(study: StudyConfig) -> StudyConfig:
    guesses = tuple(
        {
            path: _of_value(value, "study.enqueue") if path == CHECKPOINT else value
            for path, value in guess.items()
        }
        for guess in study.enqueue
    )
    return study.model_copy(update={"enqueue": guesses})


def _of_value(value: Value, setting: str) -> Value:
    """A checkpoint's path as text; empty text stays, for the check of the setting to refuse."""
    is_path = isinstance(value, str) and value
    return str(_absolute(Path(str(value)), setting)) if is_path else value


def _absolute(path: Path, setting: str, hint: str = "") -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # '~user' of an unknown user, or '~' without a home
        raise ConfigError(f"{setting}: {path}: {error}{hint}") from None
