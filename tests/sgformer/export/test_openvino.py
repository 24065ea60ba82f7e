from pathlib import Path

import numpy as np
import pytest

from sgformer.config import TrainConfig
from sgformer.errors import DataError
from sgformer.export.architecture_costs import export_untrained
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.opening import open_exported
from sgformer.export.openvino import OpenVinoClassifier, export_openvino


@pytest.fixture(scope="module")
def pico(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pico") / "pico.onnx"
    export_untrained(train_config, 10, path)
    return path


def test_it_computes_what_onnx_runtime_does(pico: Path, tmp_path: Path) -> None:
    path = tmp_path / "pico.xml"
    export_openvino(pico, path)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    found, expected = open_exported(path), OnnxClassifier(pico)
    assert isinstance(found, OpenVinoClassifier)
    assert found.classes == expected.classes
    np.testing.assert_allclose(found.logits(images), expected.logits(images), rtol=0, atol=1e-4)


def test_a_file_without_its_weights_is_refused(pico: Path, tmp_path: Path) -> None:
    path = tmp_path / "pico.xml"
    export_openvino(pico, path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match=f"not an OpenVINO model: {path}"):
        open_exported(path)
