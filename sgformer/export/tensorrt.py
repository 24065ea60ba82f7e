"""Builds TensorRT engines from exported ONNX files, for NVIDIA's GPUs.

Precision stands in the ONNX file (float32, half precision, or 8-bit integers): TensorRT 11 has no
flags for it any more. Two packages will do: `tensorrt`, which builds for the GPU at hand, and
`tensorrt_rtx`, which needs none, but builds for GeForce, RTX and A100 only, not for H100.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sgformer.errors import ExportError
from sgformer.export.packages import PACKAGES, check_packages

BATCH_SIZES: Final = (1, 8, 64)  # the least, the usual and the most that an engine takes
MOST_ERRORS: Final = 3


def build_engine(model: Path, path: Path, capabilities: Sequence[float] = ()) -> None:
    """Writes an engine that takes 1 to 64 images.

    Args:
        model: An exported ONNX file.
        path: The engine.
        capabilities: Compute capabilities to build for, such as 8.9; none: all that TensorRT RTX
            knows, or that of the GPU here.

    Raises:
        ExportError: TensorRT does not take the model, or knows no such compute capability.
        InputError: No package of TensorRT is installed.
    """
    library = _library()
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    network = builder.create_network(_strongly_typed(library))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ExportError(f"TensorRT does not take {model}: {'; '.join(errors[:MOST_ERRORS])}")
    config = builder.create_builder_config()
    if capabilities:
        _build_for(config, capabilities, library)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        value = network.get_input(i)
        profile.set_shape(value.name, *((n, *value.shape[1:]) for n in BATCH_SIZES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT built no engine of {model}; the package tensorrt needs a GPU here, "
            "tensorrt-rtx-cu13 does not"
        )
    path.write_bytes(engine)


def _library() -> Any:
    check_packages(["tensorrt"])
    return import_module(next(name for name in PACKAGES["tensorrt"] if find_spec(name)))


def _strongly_typed(library: Any) -> int:
    """The flag by which the types of the ONNX file hold; TensorRT RTX has no other way."""
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _build_for(config: Any, capabilities: Sequence[float], library: Any) -> None:
    known = getattr(library, "ComputeCapability", None)
    if known is None:
        raise ExportError(
            "the package tensorrt builds for the GPU at hand only; without one, or for others, "
            "install tensorrt-rtx-cu13 in place of it"
        )
    names = {int(n[2:]) / 10: n for n in dir(known) if n.startswith("SM")}
    for wanted in capabilities:
        if wanted not in names:
            raise ExportError(
                f"export.compute_capabilities: {wanted} is none that TensorRT RTX builds for: "
                f"{', '.join(map(str, sorted(names)))}"
            )
    config.num_compute_capabilities = len(capabilities)
    for i, wanted in enumerate(capabilities):
        config.set_compute_capability(getattr(known, names[wanted]), i)
