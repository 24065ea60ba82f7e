"""Tests of requests with features beside the image."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from served import make_app, picture
from starlette.testclient import TestClient

from sgformer.config import TrainConfig
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.features.columns import Column, FeatureColumns
from sgformer.features.encoders import HashingEncoder
from sgformer.model.build import create_model

pytestmark = pytest.mark.fuse

COLUMNS = FeatureColumns(
    (
        Column("size", "number", 1),
        Column("colour", "category", 2, ("blue", "red")),
        Column("text", "text", HashingEncoder.size),
    ),
    "hashing",
)
TOLD = {"size": 3.0, "colour": "red", "text": "two words"}
IMAGE = picture(200)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / "model.onnx"
    values = {
        "model": {"name": "sg_former_pico"},
        "data": {"image_size": 32, "crop_pct": 1.0, "cache_dir": path.parent},
    }
    config = TrainConfig.model_validate(values).resolved().with_num_features(COLUMNS.size)
    torch.manual_seed(0)
    model = create_model(config, 4)
    torch.nn.init.constant_(model.feature_fusion.gate.bias, 2.0)
    export_onnx(model, path, config, tuple("abcd"), facts=COLUMNS.as_metadata())
    return path


@pytest.fixture(scope="module")
def client(fused: Path) -> Iterator[TestClient]:
    with TestClient(make_app(fused), base_url="http://localhost") as client:
        yield client


def expected(model: Path, folder: Path, features: object) -> dict[str, float]:
    path = folder / "image.png"
    path.write_bytes(IMAGE)
    vector = None if features is None else COLUMNS.encoded_values(features, HashingEncoder())
    return OnnxClassifier(model).predict(path, vector).classes


@pytest.mark.parametrize(
    "way", ["json by column", "json as numbers", "form", "empty field", "none", "raw"]
)
def test_an_image_with_features_is_classified_as_predict_does(
    client: TestClient, fused: Path, tmp_path: Path, way: str
) -> None:
    encoded = base64.b64encode(IMAGE).decode()
    numbers = COLUMNS.encoded_values(TOLD, HashingEncoder()).tolist()
    request: dict = {
        "json by column": {"json": {"image": encoded, "features": TOLD}},
        "json as numbers": {"json": {"image": encoded, "features": numbers}},
        "form": {"files": {"image": IMAGE}, "data": {"features": json.dumps(TOLD)}},
        "empty field": {"files": {"image": IMAGE}, "data": {"features": ""}},
        "none": {"json": {"image": encoded}},
        "raw": {"content": IMAGE},
    }[way]
    answer = client.post("/predict?top=4", **request)
    assert answer.status_code == 200, answer.text
    shares = {one["class"]: one["probability"] for one in answer.json()["classes"]}
    alone = expected(fused, tmp_path, None)
    told = alone if way in {"empty field", "none", "raw"} else expected(fused, tmp_path, TOLD)
    assert shares == pytest.approx(told, abs=1e-6)
    if told is not alone:
        assert max(abs(shares[name] - alone[name]) for name in alone) > 1e-3


def test_a_batch_may_have_images_with_and_without_features(fused: Path) -> None:
    classifier = OnnxClassifier(fused)
    vector = COLUMNS.encoded_values(TOLD, HashingEncoder())
    both = [classifier.read(IMAGE, vector), classifier.read(IMAGE)]
    found = classifier.predictions([one for one in both if one is not None])
    each = [classifier.predictions([one])[0] for one in both if one is not None]
    for together, alone in zip(found, each, strict=True):
        assert together.classes == pytest.approx(alone.classes, abs=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"size": 1}, "features lacks 'colour', 'text'; the model takes size (number), colour"),
        (TOLD | {"size": "big"}, "'size' has text; the model takes numbers"),
        ([1.0, 2.0], "features: has 2 numbers; the model takes 259"),
        ("red", "not JSON of the form"),
        ({"size": {"a": 1}}, "not JSON of the form"),
    ],
)
def test_features_of_another_form_are_refused(
    client: TestClient, features: object, message: str
) -> None:
    encoded = base64.b64encode(IMAGE).decode()
    answer = client.post("/predict", json={"image": encoded, "features": features})
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_a_form_s_features_that_are_no_json_are_refused(client: TestClient) -> None:
    answer = client.post("/predict", files={"image": IMAGE}, data={"features": "{red"})
    assert answer.status_code == 400
    assert "the form's field 'features' is no JSON of an object by column" in answer.text


def test_a_model_of_images_alone_refuses_features(model: Path) -> None:
    encoded = base64.b64encode(IMAGE).decode()
    with TestClient(make_app(model), base_url="http://localhost") as client:
        answer = client.post("/predict", json={"image": encoded, "features": [1.0]})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "the model takes images alone; leave the features out"


def test_a_number_that_is_not_finite_is_refused(client: TestClient) -> None:
    body = json.dumps({"image": base64.b64encode(IMAGE).decode(), "features": TOLD})
    content = body.replace("3.0", "1e39").encode()
    answer = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "'size' of 'the request' is inf, no finite number" in answer.json()["detail"]
