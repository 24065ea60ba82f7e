from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_models import write_classifier

from sgformer.config import TrainConfig
from sgformer.errors import DataError, ExportError
from sgformer.export.onnx_classifier import OnnxClassifier, RgbClassifier
from sgformer.export.onnx_export import export_onnx, metadata_of
from sgformer.export.onnx_file import save
from sgformer.export.opening import open_exported
from sgformer.export.rgb_graph import of_rgb_images
from sgformer.export.rgb_proof import check_rgb_parity
from sgformer.model.build import create_model

CLASSES = ("a", "b", "c")
# Height and width: larger, smaller, of the same size, odd, and panoramas of more than 8 : 1.
SIZES = [(480, 640), (700, 33), (20, 31), (32, 32), (36, 50), (75, 41), (17, 400), (333, 21)]


def pair(
    folder: Path, name: str = "sg_former_pico", **data
) -> tuple[OnnxClassifier, RgbClassifier]:
    """A model of normalised images, and one of RGB images with the same weights."""
    values = {"model": {"name": name}, "data": {"image_size": 32, "crop_pct": 0.875} | data}
    config = TrainConfig.model_validate(values).resolved()
    torch.manual_seed(0)
    plain, rgb = folder / "model.onnx", folder / "model.uint8.onnx"
    export_onnx(create_model(config, len(CLASSES)), plain, config, CLASSES)
    model = of_rgb_images(onnx.load(plain), config.data)
    save(model, rgb, metadata_of(config, CLASSES))
    onnx.checker.check_model(rgb, full_check=True)
    return OnnxClassifier(plain), RgbClassifier(rgb)


def images() -> list[np.ndarray]:
    """Smooth images, as photographs are, with some noise."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in SIZES:
        waves = np.sin(np.arange(height)[:, None, None] / 9 + np.arange(width)[None, :, None] / 5)
        values = 127 + 80 * waves + rng.normal(0, 15, (height, width, 3))
        made.append(values.clip(0, 255).astype(np.uint8))
    return made


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"crop_pct": 1.0},
        {"decode_size": 64},
        {"decode_size": 64, "interpolation": "bilinear", "crop_pct": 0.9},
        {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)},
    ],
)
def test_images_of_any_size_get_the_probabilities_of_predict(tmp_path: Path, data: dict) -> None:
    plain, rgb = pair(tmp_path, "test_vit", **data)
    for pixels in images():
        np.testing.assert_allclose(
            rgb.probabilities(pixels), plain.probabilities(pixels), atol=2e-3
        )
    parity = check_rgb_parity(rgb, plain, images())
    assert parity.top1_agreement == 1.0
    assert (parity.smallest, parity.largest) == ((20, 31), (480, 640))


def test_each_image_of_a_batch_gets_what_it_gets_alone(tmp_path: Path) -> None:
    _, rgb = pair(tmp_path)
    batch = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), np.uint8)
    alone = np.stack([rgb.probabilities(pixels) for pixels in batch])
    np.testing.assert_allclose(rgb.of_batch(batch), alone, atol=1e-5)


def test_its_input_is_named_and_dynamic(tmp_path: Path) -> None:
    pair(tmp_path)
    proto = onnx.load(tmp_path / "model.uint8.onnx")
    (given,), (result,) = proto.graph.input, proto.graph.output
    assert (given.name, result.name) == ("images", "probabilities")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = given.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", "height", "width", 3]
    assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["batch", 3]


def test_a_file_of_another_model_is_not_passed(tmp_path: Path) -> None:
    _, rgb = pair(tmp_path)
    other = OnnxClassifier(write_classifier(tmp_path / "other.onnx", CLASSES))
    with pytest.raises(ExportError, match="disagrees with predict: probabilities differ"):
        check_rgb_parity(rgb, other, images())


def test_either_kind_is_opened_for_what_it_takes(tmp_path: Path) -> None:
    pair(tmp_path)
    assert isinstance(open_exported(tmp_path / "model.onnx"), OnnxClassifier)
    assert isinstance(open_exported(tmp_path / "model.uint8.onnx"), RgbClassifier)
    with pytest.raises(DataError, match=r"takes images; this needs .* input, such as model.onnx"):
        OnnxClassifier(tmp_path / "model.uint8.onnx")
