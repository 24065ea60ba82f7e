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
from sgformer.config import DistillationConfig, TrainConfig
from sgformer.errors import InputError

# An extension takes this share of the epochs that the model was trained with, which knows most
# already. With few images it takes more, up to the model's, until it has made LEAST_STEPS steps.
# Source: benchmarks/extension.py (docs/training.md).
SHARE_OF_EPOCHS: Final = 0.3
LEAST_STEPS: Final = 60
# The setting that a search of one training "searches", because a space is never empty.
ONLY: Final = "optimizer.lr_schedule"


def delivered_model(run: RunFolder) -> tuple[Path, TrainConfig, tuple[str, ...]]:
    """The folder of a run's delivered model, the model's configuration, and its classes.

    Raises:
        StudyError: The run has delivered no model, or an ensemble.
        InputError: Its checkpoint cannot be read.
    """
    from sgformer.training.trained_model import read_trained

    run.load_config()  # says what is wrong where there is no run
    if not run.is_delivered:
        raise StudyError(
            f"{run.path} has delivered no model; finish it with --resume, then extend it"
        )
    configs, classes = read_trained(ModelFiles(run.best).checkpoint)
    if len(configs) > 1:
        raise StudyError(
            f"{run.best} is an ensemble of {len(configs)} models, and an extension goes on with "
            "one; extend a run that delivered a single model or a soup (retrain.deliver)"
        )
    if configs[0].data.features is not None:
        raise StudyError(
            f"{run.best} takes features beside images, and an extension takes images alone; train "
            "a model of all classes with `search --features`"
        )
    return run.best.absolute(), configs[0], classes


def extension_settings(base: Path, images: Extended, max_value: float | None) -> dict[str, Any]:
    """Settings of the extending search that follow from its model and images, by their paths.

    The weight of the old model is the old classes' share of all classes. Source: Wu et al.,
    arXiv:1905.13260, section 3; there, the divergence is not multiplied by the temperature's
    square, which `distillation.weight` allows for.

    Args:
        base: The folder of the model.
        images: The images of the extension.
        max_value: What became white in the model's deep images; None: it had none.
    """
    of_old = len(images.old)
    of_new = len(images.new) * DistillationConfig().temperature ** 2
    settings = {
        "train.model.checkpoint": str(base),
        "train.model.pretrained": False,
        "train.distillation.teacher": [str(base)],
        "train.distillation.weight": round(of_old / (of_old + of_new), 4),
        "train.extension.base": str(base),
        "train.data.data_dir": str(images.manifest.absolute()),
    }
    return settings if max_value is None else settings | {"train.data.max_value": max_value}


def one_training(was: SearchConfig, model: TrainConfig, images: Extended) -> dict[str, Any]:
    """A search file's values of a search that trains the model's configuration once.

    Its only trial is an epoch long and shows that all works; what is delivered is a training of
    `retrain.max_epochs` epochs.

    Args:
        was: The search that delivered the model.
        model: The model's configuration.
        images: The images of the extension.
    """
    train = extended_train(model, images.num_train)
    values = was.model_dump(mode="json")
    places = ("cache_dir", "cache_bytes", "cache_format", "num_workers")
    train["data"] |= {name: values["train"]["data"][name] for name in places}
    retrain = {
        "seeds": 0, "max_epochs": train["max_epochs"], "proof_images": was.retrain.proof_images,
    }  # fmt: skip
    return {
        "study": {"num_trials": 1, "max_retries": was.study.max_retries},
        "scheduler": {"name": "none"},
        "resources": values["resources"] | {"latency_node": None},
        "space": {ONLY: {"type": "categorical", "choices": [model.optimizer.lr_schedule]}},
        "train": train | {"max_epochs": 1, "device": was.train.device},
        "retrain": retrain,
        "export": values["export"],
        # What an extension may forget is not what an earlier one was allowed to.
        "extension": {k: v for k, v in values["extension"].items() if k != "max_forgetting"},
        "report": values["report"],
    }


def extended_train(model: TrainConfig, num_images: int) -> dict[str, Any]:
    """The settings of the training that extends a model, from those that the model was made with.

    Args:
        model: The model's configuration.
        num_images: Train images of the extension.
    """
    train: dict[str, Any] = model.model_dump(mode="json")
    train["optimizer"]["warmup_epochs"] = 0
    train["early_stopping"]["patience"] = None
    num_an_epoch = max(1, (model.epoch_images or num_images) // model.optimizer.batch_size)
    epochs = max(SHARE_OF_EPOCHS * model.max_epochs, LEAST_STEPS / num_an_epoch)
    return train | {
        "max_epochs": min(model.max_epochs, math.ceil(epochs)),
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
