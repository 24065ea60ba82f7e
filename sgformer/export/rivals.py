"""Times a delivered model by turns with models that it is compared with."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from sgformer.errors import ExportError
from sgformer.export.latency import BATCH_SIZES, latencies
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.model.ensemble import Ensemble
from sgformer.training.trained_model import load_trained, member_of

DELIVERED: Final = "delivered"


def latencies_beside(model: Path, rivals: Mapping[str, tuple[Path, ...]]) -> dict[str, Any]:
    """Median and 95th percentile of milliseconds, by model and batch size, on this CPU.

    A rival that cannot be exported is left out; each model takes images of its own size.

    Args:
        model: The delivered ONNX file, which comes first, as 'delivered'.
        rivals: Checkpoints by name; several are an ensemble.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {DELIVERED: model}
        for i, (name, paths) in enumerate(rivals.items()):
            path = Path(folder) / f"{i}.onnx"
            try:
                _export(paths, path)
            except ExportError:
                continue
            files[name] = path
        opened = {name: OnnxClassifier(path) for name, path in files.items()}
        times = {
            n: latencies({name: partial(it.logits, _noise(it, n)) for name, it in opened.items()})
            for n in BATCH_SIZES
        }
    return {name: {str(n): asdict(times[n][name]) for n in BATCH_SIZES} for name in files}


def _export(paths: tuple[Path, ...], path: Path) -> None:
    config, model, classes = load_trained(paths[0])
    if len(paths) > 1:
        members = [member_of(one, classes) for one in paths]
        model = Ensemble(members, config.data.preprocessing).eval()
    export_onnx(model, path, config, classes)


def _noise(classifier: OnnxClassifier, num: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    side = classifier.data.image_size
    return np.random.default_rng(0).standard_normal((num, 3, side, side), dtype=np.float32)
