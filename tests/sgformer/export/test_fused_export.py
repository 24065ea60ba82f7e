"""Tests of exported models that take features beside images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from configs import changed
from feature_tables import write_told

from sgformer.config import TrainConfig
from sgformer.data.fused_input import FusedInput
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import ExportError
from sgformer.export.comparison import compare_files
from sgformer.export.formats import NOT_DELIVERED, Trained, write_formats
from sgformer.export.names import FEATURES, FILES, IMAGES, INPUT
from sgformer.export.onnx_classifier import OnnxClassifier, RgbClassifier
from sgformer.export.opening import open_exported
from sgformer.export.proof import check_parity
from sgformer.model.build import create_model
from sgformer.model.fusion import set_scaling

pytestmark = pytest.mark.fuse

NAN = float("nan")
FORMATS = ("onnx", "uint8", "int8", "fp16", "openvino", "tensorrt")


@pytest.fixture(scope="module")
def fused(
    train_config: TrainConfig, image_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.nn.Module, TrainConfig, ImageData]:
    """A model that takes features, with weights that give features a say."""
    table = write_told(tmp_path_factory.mktemp("tables") / "told.csv", image_folder)
    config = changed(train_config, data={"features": table}).with_num_features(3)
    data = load_image_data(config.data)
    torch.manual_seed(0)
    model = create_model(config, 10).eval()
    assert data.features is not None
    scaling = data.features.scaling
    set_scaling(model, torch.from_numpy(scaling.mean), torch.from_numpy(scaling.std))
    torch.nn.init.constant_(model.feature_fusion.gate.bias, 1.0)
    for name in ("no_image", "no_features"):
        torch.nn.init.normal_(getattr(model.feature_fusion, name))
    return model, config, data


@pytest.fixture(scope="module")
def written(
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    model, config, data = fused
    assert data.features is not None
    folder = tmp_path_factory.mktemp("written")
    facts = data.features.columns.as_metadata()
    trained = Trained(model, config, data, 30, data.trained_images, facts)
    return folder, write_formats(trained, folder, FORMATS)


def test_the_inputs_are_images_and_features_of_any_number(
    written: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = written
    graph = onnx.load(folder / "model.onnx").graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    assert shapes == {INPUT: ["batch", 3, 32, 32], FEATURES: ["batch", 3]}
    assert report["model.onnx"]["features"]["shape"] == ["batch", 3]
    assert report["model.onnx"]["parity"]["num_images"] == 3 * 30  # with both, and each alone
    rgb = onnx.load(folder / "model.uint8.onnx").graph
    assert [value.name for value in rgb.input] == [IMAGES, FEATURES]


def test_formats_that_do_not_fit_are_refused_in_one_sentence(
    written: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = written
    for name in ("int8", "fp16", "tensorrt"):
        told = report[Path(FILES[name]).name][NOT_DELIVERED]
        assert told == (
            "a model that takes features beside images is delivered as onnx, uint8, openvino, and "
            f"not as {name}; turn export.{name} off"
        )
        assert not (folder / FILES[name]).exists()


@pytest.mark.parametrize("name", ["onnx", "uint8", "openvino"])
def test_features_and_what_is_missing_change_an_answer_as_in_pytorch(
    written: tuple[Path, dict[str, Any]],
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
    name: str,
) -> None:
    (folder, _), (model, config, _) = written, fused
    classifier = open_exported(folder / FILES[name])
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    mean, std = (np.array(rgb, np.float32) for rgb in (config.data.mean, config.data.std))
    image = torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(2, 0, 1)
    rows = [np.array([150, 1, 0], np.float32), np.array([110, 0, 1], np.float32), None]
    answers = [classifier.probabilities(pixels, row) for row in rows]
    for row, answer in zip(rows, answers, strict=True):
        given = torch.full((1, 3), NAN) if row is None else torch.from_numpy(row)[None]
        with torch.inference_mode():
            expected = model(image[None], given).softmax(1)[0].numpy()
        assert answer == pytest.approx(expected, abs=0.02)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    assert np.abs(answers[0] - answers[2]).max() > 1e-3


def test_an_image_of_nan_leaves_the_features_alone(
    written: tuple[Path, dict[str, Any]],
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
) -> None:
    classifier = OnnxClassifier(written[0] / "model.onnx")
    images = np.full((2, 3, 32, 32), NAN, np.float32)
    features = np.array([[150, 1, 0], [110, 0, 1]], np.float32)
    found = classifier.logits(FusedInput(images, features))
    with torch.inference_mode():
        expected = fused[0](torch.from_numpy(images), torch.from_numpy(features)).numpy()
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(found).all()


def test_the_files_tell_the_columns_and_no_path(
    written: tuple[Path, dict[str, Any]],
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
) -> None:
    (folder, _), (_, config, data) = written, fused
    assert data.features is not None
    for name in ("onnx", "uint8", "openvino"):
        classifier = open_exported(folder / FILES[name])
        assert classifier.columns == data.features.columns
        content = (folder / FILES[name]).read_bytes()
        assert str(config.data.features).encode() not in content
        assert json.dumps("told.csv").encode() not in content


def test_a_file_that_ignores_the_features_is_not_proven(
    written: tuple[Path, dict[str, Any]],
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
) -> None:
    model, _, _ = fused
    images = np.random.default_rng(0).standard_normal((12, 3, 32, 32), dtype=np.float32)
    features = np.random.default_rng(1).standard_normal((12, 3)).astype(np.float32) * 50 + 100
    classifier = OnnxClassifier(written[0] / "model.onnx")
    assert check_parity(model, classifier, FusedInput(images, features)).argmax_agreement == 1
    changed_model = create_model(fused[1], 10).eval()
    with pytest.raises(ExportError, match="the exported model disagrees with PyTorch"):
        check_parity(changed_model, classifier, FusedInput(images, features))


def test_files_are_compared_with_their_features(
    written: tuple[Path, dict[str, Any]],
    fused: tuple[torch.nn.Module, TrainConfig, ImageData],
) -> None:
    (folder, _), (model, _, data) = written, fused
    files = {name: folder / FILES[name] for name in ("onnx", "uint8")}
    found = compare_files(files, data, 10, model, files["onnx"])
    assert [one.class_agreement for one in found.values()] == [1, 1, 1]


def test_a_model_of_rgb_images_takes_a_batch_of_features(
    written: tuple[Path, dict[str, Any]],
) -> None:
    classifier = RgbClassifier(written[0] / "model.uint8.onnx")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), np.uint8)
    features = np.array([[150, 1, 0], [NAN, NAN, NAN]], np.float32)
    found = classifier.of_batch(FusedInput(pixels, features))
    alone = classifier.of_batch(pixels)
    assert found[1] == pytest.approx(alone[1], abs=1e-6)
    assert np.abs(found[0] - alone[0]).max() > 1e-3
