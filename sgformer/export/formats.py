"""The formats of a delivered model: each is written, proven, and only then put into a folder."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import onnx
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.errors import ExportError
from sgformer.export.fp16 import export_fp16
from sgformer.export.int8 import export_int8, refuse_large
from sgformer.export.judge import Judge
from sgformer.export.names import FILES, on_features
from sgformer.export.onnx_export import export_onnx, metadata_of
from sgformer.export.onnx_file import facts, files_of, save
from sgformer.export.openvino import export_openvino
from sgformer.export.packages import check_packages
from sgformer.export.proof import MIN_ARGMAX_AGREEMENT, prove_export
from sgformer.export.rgb_graph import of_rgb_images
from sgformer.export.rgb_proof import prove_rgb
from sgformer.export.tensorrt import BATCH_SIZES, build_engine
from sgformer.images.trained_images import TrainedImages

NOT_DELIVERED: Final = "not_delivered"


@dataclass(frozen=True)
class Limits:
    """What formats have to keep to, to be delivered.

    Attributes:
        max_top1_drop: The share of val images that a format of less precision may lose, 0..1.
        even_if_slower: Whether 8-bit integers are wanted even where they are slower.
        compute_capabilities: What TensorRT builds for; empty: all that it knows.
    """

    max_top1_drop: float = 0.005
    even_if_slower: bool = False
    compute_capabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trained:
    """A trained model, the images on which its files are proven, and what they say of it.

    Attributes:
        model: The model.
        config: The training's settings.
        data: The images.
        num_images: How many val images model.onnx classifies in its proof, at most.
        images: What the files keep of the images of the training.
        facts: Further metadata, such as metrics and the license.
        limits: What the formats of less precision have to keep to.
    """

    model: nn.Module
    config: TrainConfig
    data: ImageData
    num_images: int
    images: TrainedImages | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()


def write_formats(trained: Trained, folder: Path, formats: Collection[str]) -> dict[str, Any]:
    """Writes a model's files in these formats, and proves each.

    Args:
        trained: The model.
        folder: Gets the files; has model.onnx if that is not among the formats.
        formats: Names in `FILES`.

    Returns:
        The entry of each file in export.json; of a file that is not worth its place, and so is
        not there, with the reason under `not_delivered`.

    Raises:
        ExportError: model.onnx, of which the others are made, cannot be made, or disagrees.
        InputError: A format needs a package that is not installed.
    """
    check_packages(formats)
    writer, report = _Writer(trained, folder), dict[str, Any]()
    for name in (name for name in FILES if name in formats):
        path = folder / FILES[name]
        try:
            report[path.name] = getattr(writer, name)(path)
        except ExportError as error:
            for file in files_of(path):
                file.unlink(missing_ok=True)
            if name == "onnx":
                raise
            report[path.name] = {NOT_DELIVERED: str(error)}
    return report


class _Writer:
    """Writes and proves a file by the method that has the format's name."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        self._trained, self._reference = trained, folder / FILES["onnx"]

    def _refuse_features(self, name: str) -> None:
        """Raises ExportError for a format in which a model that takes features is not written."""
        if self._trained.data.features is not None:
            raise ExportError(on_features(name))

    @cached_property
    def _judge(self) -> Judge:
        trained = self._trained
        return Judge(self._reference, trained.config, trained.data, trained.num_images)

    def onnx(self, path: Path) -> dict[str, Any]:
        it = self._trained
        export_onnx(it.model, path, it.config, it.data.classes, it.images, it.facts)
        return prove_export(it.model, path, it.config, it.data, it.num_images).as_dict()

    def uint8(self, path: Path) -> dict[str, Any]:
        it = self._trained
        metadata = metadata_of(it.config, it.data.classes, it.images)
        model = of_rgb_images(onnx.load(self._reference), it.config.data)
        save(model, path, metadata | dict(it.facts))
        return prove_rgb(path, self._reference, it.data)

    def int8(self, path: Path) -> dict[str, Any]:
        self._refuse_features("int8")
        refuse_large(self._reference)
        it, limits = self._trained, self._trained.limits
        report = export_int8(
            self._reference,
            path,
            it.config,
            it.data,
            self._judge,
            limits.max_top1_drop,
            even_if_slower=limits.even_if_slower,
        )
        return _entry(report.delivered, report.reason, report.as_dict(), path)

    def fp16(self, path: Path) -> dict[str, Any]:
        self._refuse_features("fp16")
        refuse_large(self._reference)
        most = self._trained.limits.max_top1_drop
        report = export_fp16(self._reference, path, self._judge, most)
        return _entry(report.delivered, report.reason, report.as_dict(), path)

    def openvino(self, path: Path) -> dict[str, Any]:
        export_openvino(self._reference, path)
        found = self._judge.judged(path)
        if found.class_agreement < MIN_ARGMAX_AGREEMENT:
            raise ExportError(
                f"OpenVINO disagrees with model.onnx: logits differ by up to "
                f"{found.max_logit_diff:.2g}, classes agree on {found.class_agreement:.1%} of "
                f"{len(self._judge.labels)} images"
            )
        return asdict(found)

    def tensorrt(self, path: Path) -> dict[str, Any]:
        self._refuse_features("tensorrt")
        capabilities = self._trained.limits.compute_capabilities
        build_engine(self._reference, path, capabilities)
        return {
            "bytes": path.stat().st_size,
            "batch_sizes": BATCH_SIZES,
            "compute_capabilities": capabilities or "all that TensorRT knows",
            "parity": "not measured: that needs a GPU",
        }


def _entry(delivered: bool, reason: str, values: dict[str, Any], path: Path) -> dict[str, Any]:
    """A file's entry in export.json."""
    kept = {name: value for name, value in values.items() if name not in {"delivered", "reason"}}
    return facts(path) | {"reason": reason} | kept if delivered else {NOT_DELIVERED: reason} | kept
