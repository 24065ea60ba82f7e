import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
import yaml

from hpo.config.sections import ExportConfig
from hpo.delivery.deliver import deliver, export, load_model
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from sgformer.config import TrainConfig
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, ExportError
from sgformer.export import onnx_file, proof, rgb_proof


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


@pytest.fixture
def delivered(checkpoint: Path, tmp_path: Path) -> Path:
    """A delivered model with its uint8 file."""
    best = tmp_path / "best"
    metrics = {"val": {"num_images": 30, "top1": 0.5, "per_class": {}}, "test": None}
    settings = ExportConfig(uint8=True, license="mit")
    deliver(best, checkpoint, metrics, num_images=20, settings=settings)
    return best


def test_the_model_of_rgb_images_is_delivered_with_its_proof(delivered: Path) -> None:
    report = json.loads((delivered / "export.json").read_text())["model.uint8.onnx"]
    assert report["input"]["name"] == "images"
    assert report["parity"]["top1_agreement"] == 1.0
    assert report["parity"]["max_probability_diff"] < 1e-3
    assert report["parity"]["num_images"] == 90
    assert "Decoding is the caller's" in report["parity"]["differs"]
    assert report["bytes"] == ModelFiles(delivered).uint8.stat().st_size
    for file in (ModelFiles(delivered).onnx, ModelFiles(delivered).uint8):
        (text,) = [p.value for p in onnx.load(file).metadata_props if p.key == "sgformer"]
        metadata = json.loads(text)
        assert metadata["license"] == "mit"
        assert metadata["metrics"] == {"val": {"num_images": 30, "top1": 0.5}}


def test_a_model_of_rgb_images_that_disagrees_is_left_out_with_the_reason(
    delivered: Path, train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No real model can fail the proof here, so its tolerance is taken away.
    monkeypatch.setattr(rgb_proof, "MOST_OF_ANY", -1.0)
    before = ModelFiles(delivered).onnx.read_bytes()
    exported = export(delivered, train_config.data, 20, formats=("uint8",))
    assert "disagrees with predict" in exported.refused["model.uint8.onnx"]
    assert not ModelFiles(delivered).uint8.exists()
    assert ModelFiles(delivered).onnx.read_bytes() == before
    report = json.loads((delivered / "export.json").read_text())
    assert "disagrees with predict" in report["model.uint8.onnx"]["not_delivered"]
    assert report["model.onnx"]["parity"]["argmax_agreement"] == 1.0


def test_an_export_replaces_its_formats_and_keeps_the_others(
    delivered: Path, train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (delivered / "own.txt").write_text("a user's file")
    before = json.loads((delivered / "export.json").read_text())
    ModelFiles(delivered).onnx.write_text("damaged")
    # Models of 2 GiB are too large for a test, so the limit is lowered.
    monkeypatch.setattr(onnx_file, "MOST_BYTES_OF_WEIGHTS", 100_000)
    export(delivered, train_config.data, 20, formats=("onnx",))
    report = json.loads((delivered / "export.json").read_text())
    assert report["model.uint8.onnx"] == before["model.uint8.onnx"]
    assert set(report["model.onnx"]["sha256"]) == {"model.onnx", "model.onnx.data"}
    assert (delivered / "own.txt").exists()
    monkeypatch.undo()
    export(delivered, train_config.data, 20, formats=("onnx",))
    assert not (delivered / "model.onnx.data").exists()


def test_smaller_formats_are_written_beside_the_model_or_the_reason_why_not(
    checkpoint: Path, train_config: TrainConfig, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.make()
    asked = ExportConfig(fp16=True, openvino=True, int8="smallest", max_top1_drop=1.0)
    deliver(run.best, checkpoint, {"val": None, "test": None}, num_images=20, settings=asked)
    report = json.loads((run.best / "export.json").read_text())
    assert list(report) == ["model.onnx", "model.int8.onnx", "model.fp16.onnx",
                            "model.openvino.xml"]  # fmt: skip
    assert all((run.best / name).exists() for name in report)
    whole = report["model.onnx"]["bytes"]
    assert report["model.int8.onnx"]["bytes"] < report["model.fp16.onnx"]["bytes"] < whole
    assert report["model.openvino.xml"]["class_agreement"] == 1.0
    # A limit that no settings take: the models would have to be better than the whole one.
    strict = asked.model_copy(update={"max_top1_drop": -0.5})
    exported = export(run.best, train_config.data, 20, strict, ("int8", "fp16"))
    assert set(exported.refused) == {"model.int8.onnx", "model.fp16.onnx"}
    report = json.loads((run.best / "export.json").read_text())
    for name, reason in exported.refused.items():
        assert "export.max_top1_drop allows -0.5" in reason
        assert not (run.best / name).exists()
        assert report[name]["not_delivered"] == reason
    assert (run.best / "model.openvino.bin").exists()
