"""Tests of loading weights into models of other sizes and heads."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sgformer.config import ModelConfig, TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.errors import CheckpointError
from sgformer.model.build import create_model
from sgformer.model.weight_files import Weights, read_weights
from sgformer.model.weights import fitted, load_into, renamed, start_from
from sgformer.training.trainer import Trainer

TEN = tuple("0123456789")


def built(name: str, num_classes: int = 10, **arguments: int) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(name, num_classes=num_classes, **arguments)
    return model


def of(model: torch.nn.Module, classes: tuple[str, ...] | None = None) -> Weights:
    return Weights(dict(model.state_dict()), "FILE", classes)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_pretrained_timm_weights_are_loaded_but_for_the_head(
    name: str, suffix: str, tmp_path: Path
) -> None:
    source, path = built(name, 7), tmp_path / f"weights{suffix}"
    tensors = {n: t.contiguous() for n, t in source.state_dict().items()}
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    model = built(name, 10)
    head = {n: t.clone() for n, t in model.get_classifier().state_dict().items()}
    report = load_into(model, name, read_weights(path), TEN)
    assert all(torch.equal(t, head[n]) for n, t in model.get_classifier().state_dict().items())
    loaded = model.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in tensors.items() if n not in report.new)
    assert len(report.new) == 2
    assert report.num_loaded == report.num_tensors - 2
    assert f"{report.num_loaded} of {report.num_tensors} tensors of {path}; new: " in str(report)


def test_tables_of_positions_are_resampled_to_another_image_size() -> None:
    source = built("test_vit", img_size=64)
    model = built("test_vit", img_size=96)
    assert load_into(model, "test_vit", of(source), TEN).new == ()
    resampled = timm.layers.resample_abs_pos_embed(
        source.pos_embed, [6, 6], num_prefix_tokens=model.num_prefix_tokens
    )
    assert torch.allclose(model.pos_embed, resampled)
    ours, larger = built("sg_former_pico", img_size=64), built("sg_former_pico", img_size=96)
    _, report = fitted(larger, "sg_former_pico", of(ours), TEN)
    assert report.num_loaded == report.num_tensors


def test_fitting_needs_no_memory_for_the_model() -> None:
    with torch.device("meta"):
        model = built("test_vit", img_size=64)
    tensors, report = fitted(model, "test_vit", of(built("test_vit", 7)), TEN)
    assert report.new == ("head.weight", "head.bias")
    assert tensors["pos_embed"].shape == model.pos_embed.shape
    assert tensors["pos_embed"].device.type == "cpu"


@pytest.mark.parametrize(
    ("theirs", "keeps"),
    [(None, True), (TEN, True), (tuple(reversed(TEN)), False), (tuple("abcdefghij"), False)],
)
def test_a_head_of_the_same_size_is_kept_unless_its_classes_differ(
    theirs: tuple[str, ...] | None, keeps: bool
) -> None:
    model = built("sg_former_pico")
    report = load_into(model, "sg_former_pico", of(built("sg_former_pico"), theirs), TEN)
    assert report.new == (() if keeps else ("head.weight", "head.bias"))


@pytest.mark.parametrize(
    ("other", "name", "words"),
    [
        ("test_vit", "test_resnet", r"weights of another model: 0 of the \d+ tensors before the "
         r"head fit; conv1\.0\.weight 16x3x3x3 is not there; .*the model has no cls_token"),
        ("resnet10t", "resnet18", r"conv1\.weight 64x3x7x7 is not there"),
        ("sg_former_nano", "sg_former_pico", r"pos_embed is 1x3136x16 there and 1x3136x12 in"),
    ],
)  # fmt: skip
def test_weights_of_another_model_are_refused_by_the_first_mismatches(
    other: str, name: str, words: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"^FILE does not fit {name}.*{words}"):
        load_into(built(name), name, of(built(other)), TEN)


def test_a_missing_tensor_before_the_head_is_refused() -> None:
    weights = of(built("test_resnet"))
    del weights.tensors["layer2.0.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"layer2\.0\.conv1\.weight \S+ is not there$"):
        load_into(built("test_resnet"), "test_resnet", weights, TEN)


def test_tensors_that_the_model_does_not_have_are_named() -> None:
    weights = of(built("test_resnet"))
    weights.tensors["extra.weight"] = torch.ones(1)
    report = load_into(built("test_resnet"), "test_resnet", weights, TEN)
    assert report.unexpected == ("extra.weight",)
    assert str(report).endswith("; unused: extra.weight")


def test_other_names_in_the_models_order_are_matched_by_position() -> None:
    source, model = built("test_resnet", 7), built("test_resnet")
    tensors = OrderedDict(
        (f"{i}.{name.rpartition('.')[2]}", t)
        for i, (name, t) in enumerate(source.state_dict().items())
    )
    weights = Weights(tensors, "FILE", is_ordered=True)
    report = load_into(model, "test_resnet", weights, TEN)
    assert report.in_order
    assert "taken in their order: make sure that the file is of this model" in str(report)
    assert torch.equal(model.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    assert renamed(model, weights).tensors.keys() == source.state_dict().keys()
    with pytest.raises(CheckpointError, match="does not fit"):  # safetensors sorts names
        load_into(model, "test_resnet", Weights(tensors, "FILE"), TEN)


@pytest.mark.parametrize(
    ("own", "key"), [("attn.q.", "attn.key."), ("norm1.", "mlp_norm2."), ("fc1.", "mlp.fc2.")]
)
def test_names_that_contradict_the_models_order_are_refused(own: str, key: str) -> None:
    model = built("cait_xxs24_224")
    state = dict(model.state_dict())
    same = OrderedDict((f"net.{n.replace('.q.', '.query.')}", t) for n, t in state.items())
    weights = Weights(same, "FILE", is_ordered=True)
    assert load_into(model, "cait_xxs24_224", weights, TEN).in_order
    other = OrderedDict((f"net.{n.replace(own, key)}", t) for n, t in state.items())
    assert other.keys() != same.keys()
    with pytest.raises(CheckpointError, match="does not fit"):
        load_into(model, "cait_xxs24_224", Weights(other, "FILE", is_ordered=True), TEN)


def with_values(change: Callable[[torch.Tensor], torch.Tensor]) -> Weights:
    state = built("test_resnet").state_dict()
    name = "layer2.0.conv1.weight"
    return Weights({**state, name: change(state[name])}, "FILE")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t * float("nan"), "has values that are no finite float32"),
        (lambda t: t.double() + 1e300, "has values that are no finite float32"),
        (lambda t: t.to(torch.int8), "is int8 there, and float32 in the model"),
        (lambda t: t.to(torch.complex64), "is complex64 there, and float32 in the model"),
    ],
)
def test_numbers_that_cannot_be_weights_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"^FILE: layer2\.0\.conv1\.weight {words}"):
        load_into(built("test_resnet"), "test_resnet", with_values(change), TEN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_numbers_of_any_precision_are_loaded(dtype: torch.dtype) -> None:
    weights = with_values(lambda tensor: tensor.to(dtype))
    report = load_into(built("test_resnet"), "test_resnet", weights, TEN)
    assert report.new == ()


def test_a_training_starts_from_pretrained_weights_and_its_average_too(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    source = create_model(train_config, 7)
    save_file(dict(source.state_dict()), tmp_path / "weights.safetensors")
    model = ModelConfig(
        name="sg_former_pico", drop_path_rate=0.0, checkpoint=tmp_path / "weights.safetensors"
    )
    optimizer = train_config.optimizer.model_copy(update={"learning_rate": 1e-12})
    changed = {"model": model, "optimizer": optimizer, "max_epochs": 1, "ema_decay": 0.999}
    config = train_config.model_copy(update=changed)
    trainer = Trainer(config, load_image_data(config.data))
    assert trainer.weights_loaded is None
    list(trainer.epochs())
    expected = dict(source.named_parameters())
    for name, value in trainer.model.named_parameters():
        if not name.startswith("head."):
            assert torch.allclose(value, expected[name], atol=1e-6), name
    assert str(trainer.weights_loaded).endswith("; new: head.weight, head.bias")


def test_a_config_without_weights_loads_none() -> None:
    assert start_from(built("sg_former_pico"), ModelConfig(), None, TEN) is None
