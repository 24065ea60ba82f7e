"""The model of a checkpoint, built from what the checkpoint says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError
from sgformer.model.build import create_model
from sgformer.training.checkpoint_file import load_checkpoint, read_metadata
from sgformer.validation import validate


def load_trained(path: Path) -> tuple[TrainConfig, nn.Module, tuple[str, ...]]:
    """The resolved config, the model (on the CPU, in eval mode) and the classes of a checkpoint.

    Raises:
        CheckpointError: The file is no checkpoint of this program, or of no single model.
        ConfigError: Its config is none of this version.
    """
    tensors, metadata = load_checkpoint(path)
    config, classes = _described(metadata, path)
    model = create_model(config, len(classes))
    model.load_state_dict(tensors)
    return config, model.eval(), classes


def read_trained(path: Path) -> tuple[TrainConfig, tuple[str, ...]]:
    """The resolved config and the classes of a checkpoint, without its tensors.

    Raises:
        CheckpointError, ConfigError: See `load_trained`.
    """
    return _described(read_metadata(path), path)


def _described(metadata: Mapping[str, Any], path: Path) -> tuple[TrainConfig, tuple[str, ...]]:
    if "config" not in metadata:
        raise CheckpointError(
            f"{path} does not say which model it is of; name the model that a run delivered "
            "(runs/x/best), or a trial's best.safetensors"
        )
    config = validate(TrainConfig, metadata["config"], str(path)).resolved()
    return config, tuple(metadata["classes"])
