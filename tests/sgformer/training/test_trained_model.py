from pathlib import Path

import pytest
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError
from sgformer.model.build import create_model
from sgformer.model.weight_files import read_weights
from sgformer.training.checkpoint import save_checkpoint
from sgformer.training.trained_model import (
    ensemble_checkpoint,
    load_trained,
    read_trained,
    soup_checkpoint,
)

CLASSES = ("a", "b", "c")


@pytest.fixture
def paths(train_config: TrainConfig, tmp_path: Path) -> list[Path]:
    """Checkpoints of three untrained models, of different dropout."""
    found = []
    for i in range(3):
        torch.manual_seed(i)
        config = changed(train_config, model={"drop_rate": i / 10}).resolved()
        path = tmp_path / f"{i}.safetensors"
        metadata = {"config": config.model_dump(mode="json"), "classes": CLASSES, "epoch": i}
        save_checkpoint(path, create_model(config, len(CLASSES)).state_dict(), metadata)
        found.append(path)
    return found


def test_a_soup_has_the_mean_of_the_weights_and_the_first_ones_settings(
    paths: list[Path], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "soup.safetensors", *soup_checkpoint(paths))
    config, soup, classes = load_trained(tmp_path / "soup.safetensors")
    assert (config.model.drop_rate, classes) == (0.0, CLASSES)
    each = [load_trained(path)[1].state_dict() for path in paths]
    for name, tensor in soup.state_dict().items():
        expected = torch.stack([one[name].double() for one in each]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)


def test_a_soup_of_equal_models_is_that_model(paths: list[Path]) -> None:
    tensors, _ = soup_checkpoint([paths[0]] * 3)
    for name, tensor in load_trained(paths[0])[1].state_dict().items():
        assert torch.equal(tensors[name], tensor)


def test_an_ensemble_is_one_checkpoint_that_answers_like_its_members_mean(
    paths: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "ensemble.safetensors"
    save_checkpoint(path, *ensemble_checkpoint(paths))
    config, model, classes = load_trained(path)
    assert (config.model.drop_rate, classes) == (0.0, CLASSES)
    assert [one.model.drop_rate for one in read_trained(path)[0]] == [0.0, 0.1, 0.2]
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        each = [load_trained(one)[1](images).softmax(1) for one in paths]
        torch.testing.assert_close(model(images).softmax(1), torch.stack(each).mean(0))


def test_a_training_does_not_start_from_an_ensemble(paths: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "ensemble.safetensors"
    save_checkpoint(path, *ensemble_checkpoint(paths))
    with pytest.raises(CheckpointError, match=r"ensemble of 3 models; .*distillation\.teacher"):
        read_weights(path)
