"""Needs tensorrt-rtx-cu13, which builds engines without a GPU; none is run here."""

from pathlib import Path

import pytest

from sgformer.config import TrainConfig
from sgformer.errors import ExportError
from sgformer.export.architecture_costs import export_untrained
from sgformer.export.tensorrt import build_engine

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def nano(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano.onnx"
    model = train_config.model.model_copy(update={"name": "sg_former_nano"})
    export_untrained(train_config.model_copy(update={"model": model}), 10, path)
    return path


def test_an_engine_is_built_for_two_generations_of_gpus(nano: Path, tmp_path: Path) -> None:
    path = tmp_path / "nano.engine"
    build_engine(nano, path, [8.6, 8.9])
    assert path.stat().st_size > nano.stat().st_size


def test_an_unknown_generation_is_refused_with_the_known_ones(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"9\.9 is none that .* 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        build_engine(nano, tmp_path / "nano.engine", [9.9])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=f"TensorRT does not take {path}"):
        build_engine(path, tmp_path / "model.engine", [8.9])
