from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.export.architecture_costs import export_untrained, measure_file, num_parameters
from sgformer.export.int8_graph import quantized_layers
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.model.build import create_model


def test_parameters_are_counted_as_the_model_has_them(train_config: TrainConfig) -> None:
    model = create_model(train_config, 10)
    assert num_parameters(train_config, 10) == sum(p.numel() for p in model.parameters())
    assert next(model.parameters()).device == torch.device("cpu")


def test_a_latency_is_of_the_exported_model(train_config: TrainConfig) -> None:
    found = measure_file(train_config, 10)
    assert found.format == "onnx"
    assert found.latency_ms is not None
    assert 0 < found.latency_ms < 1000


def test_bytes_are_those_of_a_trained_model(train_config: TrainConfig, tmp_path: Path) -> None:
    model = create_model(train_config, 10)
    with torch.no_grad():
        for weight in model.parameters():  # no two are alike after a training
            weight += 0.01 * torch.randn_like(weight)
    export_onnx(model, tmp_path / "model.onnx", train_config, tuple("0123456789"))
    found = measure_file(train_config, 10, is_timed=False)
    assert found.bytes == pytest.approx((tmp_path / "model.onnx").stat().st_size, rel=1e-3)
    assert found.latency_ms is None


def test_a_file_of_8_bit_integers_is_measured_where_it_is_asked_for(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "pico at 32 pixels.onnx"
    small, float32 = export_untrained(train_config, 10, path, int8=True)
    assert float32 == path
    graph = onnx.load(small).graph
    assert len(list(quantized_layers(graph))) > 10
    images = np.zeros((1, 3, 32, 32), np.float32)
    assert np.isfinite(OnnxClassifier(small).logits(images)).all()
    found = measure_file(train_config, 10, path, int8="smallest")
    assert (found.format, found.bytes) == ("int8", small.stat().st_size)
    assert measure_file(train_config, 10, path, is_timed=False).bytes == path.stat().st_size
    # Of two files the faster one would be delivered, whichever that is here.
    found = measure_file(train_config, 10, path, int8=True)
    assert found.bytes == {"onnx": path, "int8": small}[found.format].stat().st_size


def test_a_file_that_is_no_smaller_is_not_measured(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    export_untrained(train_config, 10, path)
    path.with_name("model.int8.onnx").write_bytes(path.read_bytes() + b" ")
    assert measure_file(train_config, 10, path, int8="smallest").format == "onnx"
