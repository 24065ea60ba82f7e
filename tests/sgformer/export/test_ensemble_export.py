"""Exports of an ensemble whose members differ in size of images, normalisation and family."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import CheckpointError
from sgformer.export.formats import Limits, Trained, write_formats
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.export.rivals import latencies_beside
from sgformer.model.build import create_model
from sgformer.training.checkpoint import save_checkpoint
from sgformer.training.trained_model import ensemble_checkpoint, load_trained


@pytest.fixture(scope="module")
def data(train_config: TrainConfig) -> ImageData:
    config = changed(train_config, data={"decode_size": 64})
    return load_image_data(config.data)


@pytest.fixture(scope="module")
def paths(
    train_config: TrainConfig, data: ImageData, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Checkpoints of untrained models: an SG-Former, one of larger images, and a small ResNet."""
    own = {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.1], "decode_size": 64}
    configs = [
        changed(train_config, data={"decode_size": 64}),
        changed(train_config, data={"image_size": 64, "decode_size": 64}),
        changed(train_config, model={"name": "test_resnet"}, data=own),
    ]
    folder, found = tmp_path_factory.mktemp("members"), []
    for i, config in enumerate(one.resolved() for one in configs):
        torch.manual_seed(i)
        model = create_model(config, len(data.classes))
        metadata = {"config": config.model_dump(mode="json"), "classes": data.classes}
        save_checkpoint(folder / f"{i}.safetensors", model.state_dict(), metadata)
        found.append(folder / f"{i}.safetensors")
    return found


@pytest.fixture(scope="module")
def ensemble(paths: list[Path]) -> Path:
    path = paths[0].with_name("ensemble.safetensors")
    save_checkpoint(path, *ensemble_checkpoint(paths))
    return path


@pytest.fixture(scope="module")
def written(ensemble: Path, data: ImageData) -> dict[str, dict]:
    """The entries of export.json, for the files beside the ensemble's checkpoint."""
    config, model, _ = load_trained(ensemble)
    formats = ("onnx", "uint8", "fp16", "int8", "openvino")
    # Of untrained members top-1 is chance, and what 8-bit integers lose of it says nothing.
    limits = Limits(max_top1_drop=1.0, even_if_slower=True)
    return write_formats(Trained(model, config, data, 30, limits=limits), ensemble.parent, formats)


def test_an_ensemble_is_one_file_with_a_single_models_input_and_output(
    ensemble: Path, written: dict[str, dict]
) -> None:
    model, told = load_trained(ensemble)[1], written["model.onnx"]
    assert told["input"] == {"name": "input", "shape": ["batch", 3, 32, 32], "dtype": "float32"}
    assert told["output"] == {"name": "output", "shape": ["batch", 10], "dtype": "float32"}
    assert told["parity"]["argmax_agreement"] == 1.0
    assert not any("not_delivered" in of for of in written.values()), written
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = torch.stack([one.softmax(1) for one in model.each(images)]).mean(0)
    found = torch.from_numpy(
        OnnxClassifier(ensemble.with_name("model.onnx")).logits(images.numpy())
    )
    torch.testing.assert_close(found.softmax(1), expected, rtol=1e-3, atol=1e-4)
    session = onnxruntime.InferenceSession(ensemble.with_name("model.uint8.onnx"))
    pixels = torch.randint(0, 255, (1, 40, 50, 3), dtype=torch.uint8).numpy()
    (shares,) = session.run(None, {"images": pixels})
    assert shares.sum() == pytest.approx(1, rel=1e-4)


def test_an_ensemble_in_integers_is_smaller_and_openvino_agrees(
    ensemble: Path, written: dict[str, dict]
) -> None:
    sizes = {name: ensemble.with_name(name).stat().st_size for name in written}
    assert sizes["model.int8.onnx"] < 0.5 * sizes["model.onnx"]
    assert written["model.openvino.xml"]["class_agreement"] == 1.0, written


def test_an_ensemble_is_timed_by_turns_with_a_member_alone(
    ensemble: Path, paths: list[Path], written: dict[str, dict]
) -> None:
    assert "parity" in written["model.onnx"]
    rivals = {"winner alone": (paths[0],), "teacher": (paths[0], paths[2])}
    found = latencies_beside(ensemble.with_name("model.onnx"), rivals)
    assert list(found) == ["delivered", *rivals]
    assert all(of[n]["p50"] > 0 for of in found.values() for n in ("1", "8"))


def test_an_ensemble_of_damaged_members_is_refused(paths: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*broken"):
        ensemble_checkpoint([paths[0], broken])
