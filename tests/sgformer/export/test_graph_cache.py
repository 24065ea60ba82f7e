from pathlib import Path

import numpy as np
import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.onnx_export import export_onnx
from sgformer.export.proof import check_parity
from sgformer.model.build import create_model


def config_of(cache: Path, name: str = "test_resnet", size: int = 32, **model) -> TrainConfig:
    values = {"model": {"name": name} | model, "data": {"image_size": size, "cache_dir": cache}}
    return TrainConfig.model_validate(values).resolved()


def export(config: TrainConfig, path: Path, num_classes: int = 3) -> None:
    """Exports a model of random weights, and checks the file."""
    model = create_model(config, num_classes).eval()
    export_onnx(model, path, config, tuple(map(str, range(num_classes))))
    size = config.data.image_size
    images = np.random.default_rng(0).standard_normal((8, 3, size, size), np.float32)
    check_parity(model, OnnxClassifier(path), images)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Gets an item for each graph that PyTorch makes."""
    calls, original = [], torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *a, **k: (calls.append(a), original(*a, **k))[1]
    )
    return calls


def test_an_architecture_is_exported_once_for_all_weights(
    tmp_path: Path, traced: list[object]
) -> None:
    for seed, rate in ((0, 0.0), (1, 0.1)):
        torch.manual_seed(seed)
        export(config_of(tmp_path / "cache", drop_rate=rate), tmp_path / f"{seed}.onnx")
    assert len(traced) == 1
    first, second = ((tmp_path / f"{seed}.onnx").read_bytes() for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("other", ["size", "classes", "model"])
def test_another_architecture_gets_a_graph_of_its_own(
    tmp_path: Path, traced: list[object], other: str
) -> None:
    cache = tmp_path / "cache"
    export(config_of(cache), tmp_path / "a.onnx")
    config = {
        "size": config_of(cache, size=64), "classes": config_of(cache),
        "model": config_of(cache, "test_vit"),
    }[other]  # fmt: skip
    export(config, tmp_path / "b.onnx", num_classes=4 if other == "classes" else 3)
    assert len(traced) == 2


def test_a_damaged_graph_and_a_place_that_cannot_be_written_do_no_harm(
    tmp_path: Path, traced: list[object]
) -> None:
    export(config_of(tmp_path / "cache"), tmp_path / "a.onnx")
    (graph,) = (tmp_path / "cache" / "graphs").iterdir()
    graph.write_bytes(graph.read_bytes()[:100])
    export(config_of(tmp_path / "cache"), tmp_path / "a.onnx")
    (tmp_path / "file").touch()
    export(config_of(tmp_path / "file"), tmp_path / "a.onnx")
    assert len(traced) == 3
