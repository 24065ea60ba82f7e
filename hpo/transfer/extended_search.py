"""The search that extends a run's model: its settings, from the model's own."""

import json
import math
from pathlib import Path
from typing import Any, Final

import yaml

from hpo.config.schema import SearchConfig
from hpo.errors import StudyError
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.transfer.extended_images import Extended
from sgformer.config import TrainConfig
from sgformer.errors import InputError

# Of the epochs and the learning rate that the model was trained with. A model that is already
# good needs few epochs, and large steps would make it forget.
# Source: benchmarks/extension.py (docs/training.md).
SHARE_OF_EPOCHS: Final = 0.3
SHARE_OF_LEARNING_RATE: Final = 0.3
LEAST_EPOCHS: Final = 4


def delivered_model(run: RunFolder) -> tuple[Path, TrainConfig, tuple[str, ...]]:
    """The folder of a run's delivered model, the model's configuration, and its classes.

    Raises:
        StudyError: The run has delivered no model.
        InputError: Its checkpoint cannot be read.
    """
    from sgformer.training.trained_model import read_trained

    run.load_config()  # says what is wrong where there is no run
    if not run.is_delivered:
        raise StudyError(
            f"{run.path} has delivered no model; finish it with --resume, then extend it"
        )
    config, classes = read_trained(ModelFiles(run.best).checkpoint)
    return run.best.absolute(), config, classes


def extension_settings(base: Path, images: Extended, max_value: float | None) -> dict[str, Any]:
    """Settings of the extending search that follow from its model and images, by their paths.

    The share of the old model in the loss is the old classes' share of all classes. Source: Wu
    et al., arXiv:1905.13260, section 3.

    Args:
        base: The folder of the model.
        images: The images of the extension.
        max_value: What became white in the model's deep images; None: it had none.
    """
    num_old = len(images.old)
    settings = {
        "train.model.checkpoint": str(base),
        "train.model.pretrained": False,
        "train.distillation.teacher": [str(base)],
        "train.distillation.weight": round(num_old / (num_old + len(images.new)), 4),
        "train.extension.base": str(base),
        "train.data.data_dir": str(images.manifest.absolute()),
    }
    return settings if max_value is None else settings | {"train.data.max_value": max_value}


def one_training(
    was: SearchConfig, model: TrainConfig, settings: dict[str, Any]
) -> dict[str, Any]:
    """A search file's values of a search that trains the model's configuration once.

    Its only trial is an epoch long and shows that all works; what is delivered is a training of
    `retrain.max_epochs` epochs.

    Args:
        was: The search that delivered the model.
        model: The model's configuration.
        settings: See `extension_settings`.
    """
    train = extended_train(model.model_copy(update={"device": was.train.device}))
    epochs = train["max_epochs"]
    train["max_epochs"] = 1
    train["data"] |= {
        name: was.train.model_dump(mode="json")["data"][name]
        for name in ("cache_dir", "cache_bytes", "cache_format", "num_workers")
    }
    weight = settings["train.distillation.weight"]
    values = was.model_dump(mode="json")
    return {
        "study": {"num_trials": 1, "max_retries": was.study.max_retries},
        "scheduler": {"name": "none"},
        "resources": values["resources"] | {"latency_node": None},
        "space": {"distillation.weight": {"type": "categorical", "choices": [weight]}},
        "train": train,
        "retrain": {
            "seeds": 0, "max_epochs": epochs, "proof_images": was.retrain.proof_images,
        },
        "export": values["export"],
        "extension": values["extension"],
        "report": values["report"],
    }  # fmt: skip


def extended_train(model: TrainConfig) -> dict[str, Any]:
    """The settings of the training that extends a model, from those that the model was made with.

    Args:
        model: The model's configuration.
    """
    rate = model.optimizer.learning_rate * SHARE_OF_LEARNING_RATE
    train: dict[str, Any] = model.model_dump(mode="json")
    train["optimizer"] |= {
        "learning_rate": rate,
        "min_learning_rate": min(model.optimizer.min_learning_rate, rate),
        "warmup_epochs": 0,
    }
    train["early_stopping"]["patience"] = None
    return train | {
        "max_epochs": max(LEAST_EPOCHS, math.ceil(SHARE_OF_EPOCHS * model.max_epochs)),
        "freeze": "none",
        "unfreeze_epoch": None,
        "extension": {},
    }


def as_overrides(settings: dict[str, Any]) -> list[str]:
    """The settings as `--set` takes them; YAML, in which a path may have any character."""
    return [f"{path}={json.dumps(value)}" for path, value in settings.items()]


def write_search_file(folder: Path, values: dict[str, Any]) -> Path:
    """Writes the search file beside the images; returns its path."""
    file = folder / "extend.yaml"
    try:
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None
    return file
