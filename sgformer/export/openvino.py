"""Exports a model to OpenVINO's own format, for Intel's processors and GPUs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgformer.cpus import usable_cpus
from sgformer.errors import DataError, ExportError
from sgformer.export.onnx_classifier import INPUT, METADATA_KEY


def export_openvino(model: Path, path: Path) -> None:
    """Writes the model's .xml, and its .bin beside it; weights keep their precision.

    Args:
        model: An exported ONNX file, in float32 or 8-bit integers.
        path: The .xml file.

    Raises:
        ExportError: OpenVINO is missing, or does not take the model.
    """
    import onnx

    openvino = _library()
    metadata = {p.key: p.value for p in onnx.load(model, load_external_data=False).metadata_props}
    try:
        converted = openvino.convert_model(model)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO does not take {model}: {_first_line(error)}") from error
    converted.set_rt_info(metadata[METADATA_KEY], METADATA_KEY)
    openvino.save_model(converted, path, compress_to_fp16=False)


class OpenVinoSession:
    """Runs an OpenVINO file on a CPU.

    Args:
        path: The .xml file.

    Attributes:
        metadata: The text that the export left in it; None: it is of another program.

    Raises:
        DataError: The file cannot be read, or its .bin is missing.
        ExportError: OpenVINO is missing.
    """

    def __init__(self, path: Path) -> None:
        openvino = _library()
        try:
            model = openvino.Core().read_model(path)
            found = model.has_rt_info(METADATA_KEY)
            self.metadata: str | None = model.get_rt_info(METADATA_KEY).value if found else None
            threads = {"INFERENCE_NUM_THREADS": usable_cpus()}
            # OpenVINO computes in bfloat16 where the CPU can, unless told otherwise.
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            self._model = openvino.compile_model(model, "CPU", threads | exact)
        except RuntimeError as error:
            raise DataError(f"not an OpenVINO model: {path}: {_first_line(error)}") from None

    def logits(self, images_BCHW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The logits (B, classes) of normalised images (B, 3, H, W)."""
        result: npt.NDArray[np.float32] = self._model({INPUT: images_BCHW})[0]
        return result


def _library() -> Any:
    try:
        import openvino
    except ImportError:
        raise ExportError(
            "the format openvino needs the package openvino: pip install 'sgformer-hpo[openvino]'"
        ) from None
    return openvino


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
