"""Tests of where weights come from: the folder of released files, and timm's hub."""

import types
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from released import Released, released_weights
from safetensors.torch import save_file

from sgformer.config import ModelConfig
from sgformer.errors import CheckpointError, ConfigError
from sgformer.model.sizes import SIZES
from sgformer.model.weight_sources import (
    Whereabouts,
    load_weights,
    source_file,
    whereabouts,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGFORMER_WEIGHTS", str(tmp_path))
    return tmp_path


def write_released(path: Path, name: str) -> dict[str, torch.Tensor]:
    shapes = Released({"num_classes": 1000, "mlp_ratios": (4,) * 4, **SIZES[name]._asdict()})
    weights = {n: value.float() for n, value in released_weights(shapes, 3).items()}
    torch.save({"model": {f"module.{n}": value for n, value in weights.items()}}, path)
    return weights


def test_timm_creates_a_pretrained_sg_former_from_the_folder(folder: Path) -> None:
    weights = write_released(folder / "sg_former_b0.pth", "sg_former_b0")
    model = timm.create_model(
        "sg_former_b0", pretrained=True, num_classes=10, drop_rate=0.1, attn_drop_rate=0.1
    )
    assert model.head.out_features == 10
    assert torch.equal(model.stages[0].norm.weight, weights["norm1.weight"])
    assert "state_dict" not in model.pretrained_cfg
    whole = timm.create_model("sg_former_b0", pretrained=True)
    assert torch.equal(whole.head.weight, weights["head.weight"])


def test_pretrained_weights_that_are_missing_are_said_where_to_get(folder: Path) -> None:
    words = rf"sg_former_s on this machine: .*OliverRensu/SG-Former.* at {folder}/sg_former_s.pth"
    with pytest.raises(CheckpointError, match=words):
        timm.create_model("sg_former_s", pretrained=True)
    with pytest.raises(CheckpointError, match=words):
        load_weights(ModelConfig(name="sg_former_s", pretrained=True))


@pytest.mark.parametrize("name", ["sg_former_pico", "sg_former_b1", "sg_former_b5"])
def test_a_size_that_was_never_released_is_said_to_have_no_weights(
    name: str, folder: Path
) -> None:
    words = rf"^no weights were released for {name}, .*\.pth .*checkpoint.* or take sg_former_s,"
    with pytest.raises(CheckpointError, match=words):
        load_weights(ModelConfig(name=name, pretrained=True))


def test_the_default_folder_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SGFORMER_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".cache" / "sgformer-hpo" / "weights" / "sg_former_pico.safetensors"
    path.parent.mkdir(parents=True)
    save_file(dict(timm.create_model("sg_former_pico").state_dict()), path)
    config = ModelConfig(name="sg_former_pico", pretrained=True)
    assert source_file(config) == path
    weights = load_weights(config)
    assert weights is not None
    assert weights.tensors.keys() == timm.create_model("sg_former_pico").state_dict().keys()


def test_a_released_file_is_converted_as_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "any name.pth"
    released = write_released(path, "sg_former_b0")
    weights = load_weights(ModelConfig(name="sg_former_b0", checkpoint=path))
    assert weights is not None
    assert torch.equal(weights.tensors["stages.0.norm.weight"], released["norm1.weight"])


def test_a_model_whose_pretrained_weights_timm_lacks_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no pretrained weights of dpn48b; nearest.*dpn68b"):
        load_weights(ModelConfig(name="dpn48b", pretrained=True))


def test_pretrained_weights_in_the_hubs_cache_are_read_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timm.create_model("test_resnet")
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in source.state_dict().items()}, path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(path))
    weights = load_weights(ModelConfig(name="test_resnet", pretrained=True))
    assert weights is not None
    assert torch.equal(weights.tensors["fc.weight"], source.fc.weight)
    assert weights.source == "timm's weights test_resnet.r160_in1k"


def test_pretrained_weights_are_asked_for_once_if_the_hub_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def unreachable(*_: Any, **options: Any) -> None:
        asked.append(options["timeout"])
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    words = r"test_resnet are not in the hub's cache .*: Name or service not known; .*HF_HOME"
    with pytest.raises(CheckpointError, match=words):
        load_weights(ModelConfig(name="test_resnet", pretrained=True))
    assert asked == [5.0]


def test_weights_that_can_be_had_are_told_from_those_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: Any, **__: Any) -> Any:
        return types.SimpleNamespace(siblings=())

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setenv("SGFORMER_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    assert whereabouts("test_resnet") == (Whereabouts.HUB, "")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    place, problem = whereabouts("test_resnet")
    assert place is Whereabouts.NOWHERE
    assert "download them where there is a network" in problem
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "file")
    assert whereabouts("test_resnet") == (Whereabouts.HERE, "")
    place, problem = whereabouts("sg_former_s")
    assert place is Whereabouts.NOWHERE
    assert f"put it at {tmp_path}/sg_former_s.pth" in problem
    (tmp_path / "sg_former_s.pth").touch()
    assert whereabouts("sg_former_s") == (Whereabouts.HERE, "")


def test_a_fault_that_is_not_the_networks_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", broken)
    with pytest.raises(ZeroDivisionError):
        whereabouts("test_resnet")
