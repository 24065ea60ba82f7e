"""The fingerprint of a training: a hash of the settings that determine its result."""

import hashlib
import json
from typing import Any, Final

# Settings that do not change the result: folders, device, and what only saves memory or time.
_PASSED_OVER: Final = (
    "device",
    "grad_checkpointing",
    "data.data_dir",
    "data.num_workers",
    "data.cache_dir",
    "data.cache_bytes",
    "data.cache_format",
    "optimizer.micro_batch_size",
)
# Settings that came after the first release, with the value that stands for the former behaviour:
# it is left out of a fingerprint, so that former trainings keep theirs.
_LATER: Final = {
    "model.pretrained": False,
    "model.checkpoint": None,
    "data.interpolation": "bicubic",
    "data.background": [255, 255, 255],
    "data.max_value": None,
    "data.decode_size": None,
    "optimizer.head_learning_rate_factor": 1.0,
    "freeze": "none",
    "unfreeze_epoch": None,
    "epoch_images": None,
    "eval_images": None,
}


def fingerprint_of(values: dict[str, Any], weights: str | None) -> str:
    """The fingerprint of the values of a resolved TrainConfig, which this function changes.

    Args:
        values: All settings, of JSON's types.
        weights: The SHA-256 of the weights that the training starts from; None: unknown, or newly
            initialised.
    """
    for path in _PASSED_OVER:
        _take(values, path)
    if weights is not None:
        values["model"]["weights"] = weights
    for path, former in _LATER.items():
        if (value := _take(values, path)) != former:
            _section(values, path)[path.rpartition(".")[2]] = value
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _take(values: dict[str, Any], path: str) -> Any:
    return _section(values, path).pop(path.rpartition(".")[2])


def _section(values: dict[str, Any], path: str) -> dict[str, Any]:
    section = path.rpartition(".")[0]
    found: dict[str, Any] = values[section] if section else values
    return found
