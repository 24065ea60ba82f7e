"""Tests of reading files of weights; each bad file gets one sentence that names it."""

import argparse
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import CheckpointError
from sgformer.model.weight_files import StoredWeights, read_weights
from sgformer.training.checkpoint import save_progress
from sgformer.training.trainer import Trainer

TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        read_weights(path)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": tensors, "args": argparse.Namespace(lr=0.1, name="b0")},
        lambda tensors: {"state_dict_ema": tensors, "state_dict": {}},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"state_dict": {f"model.{n}": t for n, t in tensors.items()}},
    ],
)
def test_weights_of_torch_save_are_unwrapped(wrap: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(TENSORS), path)
    weights = read_weights(path)
    assert weights.tensors.keys() == TENSORS.keys()
    assert torch.equal(weights.tensors["a.weight"], TENSORS["a.weight"])
    assert weights.source == str(path)


def test_the_older_format_of_torch_save_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    assert read_weights(path).tensors.keys() == TENSORS.keys()


def test_a_safetensors_file_is_read_under_any_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file({f"module.{name}": tensor for name, tensor in TENSORS.items()}, path)
    assert read_weights(path).tensors.keys() == TENSORS.keys()


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "evil.pth"
    torch.save({"state_dict": TENSORS, "optimizer": Payload(made)}, path)
    assert re.search(r"is refused: .* it holds \S+mkdir, which could run code", refusal(path))
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Payload(made)))
    refusal(plain)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # so the payload works where it is run


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 3), path)
    assert "save only a model's state_dict()" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
        (b"\xef\xbb\xbf<html></html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "a pointer of Git LFS"),
        (b"no weights, but words", "neither a safetensors file nor one of torch.save"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_is_named(
    content: bytes, words: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    message = refusal(path)
    assert words in message or (suffix == ".safetensors" and "is no safetensors file" in message)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)({"a": torch.ones(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert re.search("cut off|damaged", refusal(path))


def test_values_that_are_no_named_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(torch.ones(3), path)
    assert "but a Tensor; save a model's state_dict()" in refusal(path)
    torch.save({"epoch": 3}, path)
    assert "there is no tensor with a name in it" in refusal(path)


def test_tensors_without_a_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(dict(enumerate(TENSORS.values())), path)
    assert "there is no tensor with a name in it" in refusal(path)


def test_a_file_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, path)
    assert "there is no tensor with a name in it" in refusal(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.to("meta"), "holds a.weight as an empty (meta) tensor"),
        (lambda tensor: tensor.to_sparse(), "holds a.weight as a sparse or quantized tensor"),
    ],
)
def test_tensors_without_plain_numbers_are_refused(
    change: Any, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: change(tensor) for name, tensor in TENSORS.items()}, path)
    assert words in refusal(path)


@pytest.mark.parametrize(
    "header",
    [{"images": None}, {"images": [1]}, {"classes": 5}, {"images": {"classes": "ab"}}],
)
def test_a_header_of_this_program_that_is_damaged_is_refused(
    header: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path, {"sgformer": json.dumps(header)})
    assert "its header 'sgformer' names no list of classes" in refusal(path)


def test_a_missing_file_and_a_folder_without_weights_are_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.pth")
    (tmp_path / "empty").mkdir()
    assert "is a folder without weights; it has none of checkpoint.safetensors" in refusal(
        tmp_path / "empty"
    )


def test_our_own_checkpoints_are_read_with_their_classes(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    config = train_config.model_copy(update={"max_epochs": 1, "ema_decay": 0.5})
    trainer = Trainer(config, load_image_data(config.data))
    list(trainer.epochs())
    save_progress(trainer, tmp_path)
    for path in (tmp_path, tmp_path / "best.safetensors", tmp_path / "last.safetensors"):
        weights = read_weights(path)
        assert weights.classes == trainer.data.classes
        evaluated = trainer.model.state_dict()
        assert weights.tensors.keys() == evaluated.keys()
        assert torch.equal(weights.tensors["head.weight"], evaluated["head.weight"])


def test_a_runs_copy_has_the_name_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    save_file(TENSORS, path)
    assert StoredWeights(path, "0", "timm's weights x").read().source == "timm's weights x"
