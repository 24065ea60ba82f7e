"""The formats and their files; names of inputs, outputs and metadata in these files."""

from typing import Final

METADATA_KEY: Final = "sgformer"
INPUT, OUTPUT = "input", "output"  # of normalised images, and logits
FEATURES: Final = "features"  # the second input of a model that takes features
IMAGES, PROBABILITIES = "images", "probabilities"  # of RGB images
WITH_FEATURES: Final = ("onnx", "uint8", "openvino")  # formats of a model that takes features
BATCH: Final = "batch"
# The files of each format, in the order in which they are written: each may be made of those
# before it.
FILES: Final = {
    "onnx": "model.onnx",
    "uint8": "model.uint8.onnx",
    "int8": "model.int8.onnx",
    "fp16": "model.fp16.onnx",
    "openvino": "model.openvino.xml",
    "tensorrt": "model.engine",
}


def on_features(name: str) -> str:
    """The message that a model that takes features is not written in a format."""
    return (
        f"a model that takes features beside images is delivered as {', '.join(WITH_FEATURES)}, "
        f"and not as {name}; turn export.{name} off"
    )
