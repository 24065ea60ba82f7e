"""Opens an exported file of any format that a CPU can run."""

from pathlib import Path

from sgformer.errors import DataError
from sgformer.export.names import FILES, IMAGES
from sgformer.export.onnx_classifier import (
    ExportedModel,
    OnnxClassifier,
    RgbClassifier,
    open_session,
)


def open_exported(path: Path) -> ExportedModel:
    """The classifier of an exported file.

    Raises:
        DataError: The file is missing, or was not exported by this program.
        InputError: It needs a package that is not installed.
    """
    if path.suffix == Path(FILES["tensorrt"]).suffix:
        raise DataError(f"{path} is an engine of TensorRT, which runs on its GPU only")
    if path.suffix == ".xml":
        return open_normalised(path)
    takes = [value.name for value in open_session(path).get_inputs()]
    return RgbClassifier(path) if IMAGES in takes else OnnxClassifier(path)


def open_normalised(path: Path) -> OnnxClassifier:
    """The classifier of an exported file that takes normalised images; raises as open_exported."""
    if path.suffix == ".xml":
        from sgformer.export.openvino import OpenVinoClassifier

        return OpenVinoClassifier(path)
    return OnnxClassifier(path)
