"""Needs tensorrt-rtx-cu13, which builds engines without a GPU; none is run here."""

from pathlib import Path

import pytest

from sgformer.catalog import MODEL_NAMES
from sgformer.config import TrainConfig
from sgformer.errors import ExportError
from sgformer.export.architecture_costs import export_untrained
from sgformer.export.tensorrt import build_engine

pytest.importorskip("tensorrt_rtx")


def export(config: TrainConfig, name: str, image_size: int, path: Path) -> None:
    """Exports a model of ten classes, with random weights."""
    model = config.model.model_copy(update={"name": name})
    data = config.data.model_copy(update={"image_size": image_size})
    export_untrained(config.model_copy(update={"model": model, "data": data}), 10, path)


@pytest.fixture(scope="module")
def nano(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano.onnx"
    export(train_config, "sg_former_nano", 32, path)
    return path


def test_an_engine_is_built_for_two_generations_of_gpus(nano: Path, tmp_path: Path) -> None:
    path = tmp_path / "nano.engine"
    build_engine(nano, path, [8.6, 8.9])
    assert path.stat().st_size > nano.stat().st_size


@pytest.mark.parametrize(
    "name",
    [
        name if name == "sg_former_b0" else pytest.param(name, marks=pytest.mark.slow)
        for name in MODEL_NAMES
    ],
)
def test_an_engine_of_every_architecture_is_built_at_224_pixels(
    train_config: TrainConfig, tmp_path: Path, name: str
) -> None:
    model, engine = tmp_path / "model.onnx", tmp_path / "model.engine"
    export(train_config, name, 224, model)
    build_engine(model, engine, [8.6, 8.9])
    assert engine.stat().st_size > model.stat().st_size


def test_an_unknown_generation_is_refused_with_the_known_ones(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"9\.9 is none that .* 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        build_engine(nano, tmp_path / "nano.engine", [9.9])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=f"TensorRT does not take {path}"):
        build_engine(path, tmp_path / "model.engine", [8.9])
