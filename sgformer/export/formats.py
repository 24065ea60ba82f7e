"""The formats of a delivered model: each is written, proven, and only then put into a folder."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from torch import nn

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData
from sgformer.errors import ExportError
from sgformer.export.names import FILES
from sgformer.export.onnx_export import export_onnx, metadata_of
from sgformer.export.onnx_file import files_of, save
from sgformer.export.proof import prove_export
from sgformer.export.rgb_graph import of_rgb_images
from sgformer.export.rgb_proof import prove_rgb
from sgformer.images.trained_images import TrainedImages

NOT_DELIVERED: Final = "not_delivered"


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
    """

    model: nn.Module
    config: TrainConfig
    data: ImageData
    num_images: int
    images: TrainedImages | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_formats(trained: Trained, folder: Path, formats: Collection[str]) -> dict[str, Any]:
    """Writes a model's files in these formats, and proves each.

    Args:
        trained: The model.
        folder: Gets the files; has model.onnx if that is not among the formats.
        formats: Names in `FILES`.

    Returns:
        The entry of each file in export.json; of a file that disagrees with the model, and so is
        not there, the reason under `not_delivered`.

    Raises:
        ExportError: model.onnx, of which the others are made, cannot be made, or disagrees.
    """
    report: dict[str, Any] = {}
    for name in (name for name in FILES if name in formats):
        path = folder / FILES[name]
        try:
            report[path.name] = WRITERS[name](trained, path)
        except ExportError as error:
            for file in files_of(path):
                file.unlink(missing_ok=True)
            if name == "onnx":
                raise
            report[path.name] = {NOT_DELIVERED: str(error)}
    return report


def _write_onnx(trained: Trained, path: Path) -> dict[str, Any]:
    classes = trained.data.classes
    export_onnx(trained.model, path, trained.config, classes, trained.images, trained.facts)
    report = prove_export(trained.model, path, trained.config, trained.data, trained.num_images)
    return report.as_dict()


def _write_uint8(trained: Trained, path: Path) -> dict[str, Any]:
    reference = path.with_name(FILES["onnx"])
    metadata = metadata_of(trained.config, trained.data.classes, trained.images)
    model = of_rgb_images(onnx.load(reference), trained.config.data)
    save(model, path, metadata | dict(trained.facts))
    return prove_rgb(path, reference, trained.data)


WRITERS: Final[Mapping[str, Callable[[Trained, Path], dict[str, Any]]]] = {
    "onnx": _write_onnx,
    "uint8": _write_uint8,
}
