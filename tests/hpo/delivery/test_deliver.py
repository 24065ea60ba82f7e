import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from hpo.delivery.deliver import deliver, export, load_model
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training
from hpo.run_folder import ModelFiles, RunFolder
from sgformer.config import TrainConfig
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, ExportError
from sgformer.export import proof


@pytest.fixture(scope="module")
def checkpoint(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best epoch's weights of a training of three epochs."""
    folder = tmp_path_factory.mktemp("run") / "training"
    list(retrain_epochs(Training(train_config, folder)))
    return folder / "best.safetensors"


def test_a_checkpoint_is_rebuilt_with_its_weights(
    checkpoint: Path, train_config: TrainConfig
) -> None:
    config, model, classes = load_model(checkpoint)
    assert config == train_config
    assert classes == tuple(str(d) for d in range(10))
    assert not model.training
    again = load_model(checkpoint)[1]
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), again(images))


def test_best_is_replaced_as_a_whole_and_only_by_what_is_proven(
    checkpoint: Path, train_config: TrainConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = RunFolder(tmp_path / "run")
    run.make()
    metrics = {"val": {"num_images": 30}, "test": None}
    deliver(run.best, checkpoint, metrics, num_images=20)
    assert run.is_delivered
    assert ModelFiles(run.best).fingerprint() == train_config.fingerprint()
    assert json.loads((run.best / "metrics.json").read_text()) == metrics
    report = json.loads((run.best / "export.json").read_text())["model.onnx"]
    assert report["num_images"] == report["parity"]["num_images"] == 20
    assert yaml.safe_load((run.best / "config.yaml").read_text())["max_epochs"] == 3
    before = {path.name: path.read_bytes() for path in run.best.iterdir()}
    # No real model can fail the proof here, so its tolerance is taken away.
    monkeypatch.setattr(proof, "OF_SG_FORMER", proof.Tolerance(-1.0, -1.0))
    with pytest.raises(ExportError, match="disagrees with PyTorch"):
        deliver(run.best, checkpoint, metrics)
    assert {path.name: path.read_bytes() for path in run.best.iterdir()} == before
    # This is the state after a crash between the two renames of an earlier delivery.
    run.best.rename(run.best.with_name(".best-old"))
    with pytest.raises(FileNotFoundError):
        deliver(run.best, tmp_path / "gone.safetensors", metrics)
    assert {path.name: path.read_bytes() for path in run.best.iterdir()} == before


def test_a_folder_of_other_classes_is_refused(
    checkpoint: Path, own_image_folder: Path, tmp_path: Path
) -> None:
    best = tmp_path / "best"
    best.mkdir()
    shutil.copyfile(checkpoint, best / "checkpoint.safetensors")
    for split in ("train", "val", "test"):
        (own_image_folder / split / "0").rename(own_image_folder / split / "zero")
    with pytest.raises(
        DataError, match=r"has other classes than the model: '0' are missing, 'zero' are new"
    ):
        export(best, DataConfig(data_dir=own_image_folder), num_images=20)
    assert not (best / "model.onnx").exists()
