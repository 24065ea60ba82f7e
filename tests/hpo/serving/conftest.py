"""Fixtures: an exported model, and clients of the application that serves it without Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx_models import write_classifier
from served import make_app
from starlette.testclient import TestClient

CLASSES = tuple("abcdefgh")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of 32-pixel images by their mean colour."""
    return write_classifier(tmp_path_factory.mktemp("served") / "m.onnx", CLASSES)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[TestClient]:
    with TestClient(make_app(model), base_url="http://localhost") as client:
        yield client
