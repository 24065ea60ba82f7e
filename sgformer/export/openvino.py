"""Exports a model to OpenVINO's own format, for Intel's processors and GPUs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sgformer.cpus import usable_cpus
from sgformer.errors import DataError, ExportError
from sgformer.export.names import INPUT, METADATA_KEY
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.packages import check_packages


def export_openvino(model: Path, path: Path) -> None:
    """Writes the model's .xml, and its .bin beside it; weights keep their precision.

    Args:
        model: An exported ONNX file, in float32 or 8-bit integers.
        path: The .xml file.

    Raises:
        ExportError: OpenVINO does not take the model.
        InputError: OpenVINO is not installed.
    """
    check_packages(["openvino"])
    import onnx
    import openvino

    metadata = {p.key: p.value for p in onnx.load(model, load_external_data=False).metadata_props}
    try:
        converted = openvino.convert_model(model)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO does not take {model}: {_reason(error)}") from error
    converted.set_rt_info(metadata[METADATA_KEY], METADATA_KEY)
    openvino.save_model(converted, path, compress_to_fp16=False)


class OpenVinoClassifier(OnnxClassifier):
    """Runs an OpenVINO model of normalised images on a CPU.

    Raises:
        DataError: The file cannot be read, its .bin is missing, or it was not exported by this
            program.
        InputError: OpenVINO is not installed.
    """

    def _open(self, path: Path, num_threads: int | None) -> tuple[str | None, list[str]]:
        check_packages(["openvino"])
        import openvino

        if not path.is_file():
            raise DataError(f"no such file: {path}; expected an exported model")
        # OpenVINO computes in bfloat16 where the CPU can, unless told otherwise.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": num_threads or usable_cpus(),
        }
        try:
            model = openvino.Core().read_model(path)
            self._model = openvino.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise DataError(f"not an OpenVINO model: {path}: {_reason(error)}") from None
        text = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        return text, [name for value in model.inputs for name in value.get_names()]

    def logits(self, given: Any) -> npt.NDArray[np.float32]:
        """The logits (B, classes) of normalised images (B, 3, H, W), with any features."""
        result: npt.NDArray[np.float32] = self._model(self.fed(INPUT, given))[0]
        return result


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
