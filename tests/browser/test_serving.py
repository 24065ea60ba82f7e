"""The page of `serve`, with the form that takes a picture."""

import json
from pathlib import Path

import pytest
from onnx_models import write_classifier
from pages import PHONE, Visitor, too_wide
from playwright.sync_api import expect
from served import make_app, picture, running

from sgformer.export.onnx_classifier import OnnxClassifier

pytestmark = pytest.mark.browser


def test_the_form_classifies_a_picture_as_predict_does(visitor: Visitor, tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "m.onnx", tuple("abcdefgh"))
    image = tmp_path / "a.png"
    image.write_bytes(picture(200))
    with running(make_app(model)) as (host, port):
        page = visitor.open(f"http://{host}:{port}/")
        page.get_by_text("/predict").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.locator("input[type=file]").set_input_files(image)
        page.get_by_role("button", name="Execute").click()
        body = page.locator(".live-responses-table .response-col_description pre").first
        expect(body).to_contain_text("classes")
        answer = json.loads(body.inner_text())
        page = visitor.open(f"http://{host}:{port}/docs", PHONE)
        expect(page.get_by_text("/predict").first).to_be_visible()
        assert too_wide(page) == 0
    said = OnnxClassifier(model).predict(image).classes
    shares = {one["class"]: one["probability"] for one in answer["classes"]}
    assert shares == {name: pytest.approx(said[name], abs=1e-6) for name in shares}
    assert list(shares) == list(said)[:3]
