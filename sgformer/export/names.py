"""Names in exported files: of inputs, outputs, the batch axis and the metadata."""

from typing import Final

METADATA_KEY: Final = "sgformer"
INPUT, OUTPUT = "input", "output"  # of normalised images, and logits
IMAGES, PROBABILITIES = "images", "probabilities"  # of RGB images
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
