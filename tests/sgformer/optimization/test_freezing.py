from pathlib import Path

import pytest
import timm
import torch
from configs import changed
from safetensors.torch import save_file
from two_processes import in_two_processes, train

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import ConfigError
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.trainer import Trainer


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


@pytest.fixture
def with_batch_norm(train_config: TrainConfig) -> TrainConfig:
    """A training of the smallest timm model that has BatchNorm and stages."""
    return changed(train_config, model={"name": "mobilenetv3_small_050"})


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.state_dict()[0].items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The model's parameters and buffers that a training changed."""
    names = {name for name in before if name.startswith("model.")}
    return {n.removeprefix("model.") for n in names if not torch.equal(before[n], after[n])}


def num_states(trainer: Trainer) -> int:
    """For how many parameters the optimizer keeps a state."""
    return len({n.split(".")[1] for n in trainer.state_dict()[0] if n.startswith("optimizer.")})


def test_with_a_frozen_backbone_only_the_head_is_trained(
    with_batch_norm: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(changed(with_batch_norm, freeze="backbone", max_epochs=1), data)
    before = state_of(trainer)
    list(trainer.epochs())
    assert moved(before, state_of(trainer)) == {"classifier.weight", "classifier.bias"}
    assert num_states(trainer) == 2
    frozen = [p for n, p in trainer.model.named_parameters() if not n.startswith("classifier")]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_frozen_stages_keep_weights_and_statistics_and_the_others_move(
    with_batch_norm: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(changed(with_batch_norm, freeze="stages_2", max_epochs=1), data)
    before = state_of(trainer)
    list(trainer.epochs())
    has_moved = moved(before, state_of(trainer))
    parts = ("conv_stem", "bn1.", "blocks.0.", "blocks.1.")
    assert not [name for name in has_moved if name.startswith(parts)]
    assert {"blocks.2.0.conv_pw.weight", "blocks.2.0.bn1.running_mean"} <= has_moved


def test_frozen_stages_compute_what_they_do_in_evaluation(
    train_config: TrainConfig, data: ImageData
) -> None:
    rates = {"proj_drop_rate": 0.5, "attn_drop_rate": 0.5, "drop_path_rate": 0.5}
    trainer = Trainer(changed(train_config, model=rates, freeze="stages_3", max_epochs=1), data)
    in_training: set[str] = set()

    def note(model: torch.nn.Module, _images: object) -> None:
        in_training.update(name for name, module in model.named_modules() if module.training)

    trainer.model.register_forward_pre_hook(note)
    list(trainer.epochs())
    assert not [name for name in in_training if name.startswith(("stem", "stages.0", "stages.2"))]
    below = {f"stages.3.{name}" for name, _ in trainer.model.stages[3].named_modules() if name}
    assert below | {"head_drop", "head"} <= in_training


def test_frozen_weights_join_at_their_epoch(with_batch_norm: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(changed(with_batch_norm, freeze="backbone", unfreeze_epoch=3), data)
    epochs = trainer.epochs()
    start = state_of(trainer)
    next(epochs), next(epochs)
    second = state_of(trainer)
    assert moved(start, second) == {"classifier.weight", "classifier.bias"}
    next(epochs)
    parameters = {name for name, _ in trainer.model.named_parameters()}
    assert parameters <= moved(second, state_of(trainer))
    assert num_states(trainer) == len(parameters)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_fine_tuning_goes_on_bit_for_bit(
    with_batch_norm: TrainConfig, data: ImageData, tmp_path: Path, stop_after: int
) -> None:
    config = changed(
        with_batch_norm,
        freeze="stages_3",
        unfreeze_epoch=3,
        max_epochs=4,
        ema_decay=0.9,
        optimizer={"head_learning_rate_factor": 5.0, "layer_decay": 0.8, "max_grad_norm": 1.0},
    )
    whole, first = Trainer(config, data), Trainer(config, data)
    list(whole.epochs())
    epochs = first.epochs()
    for _ in range(stop_after):
        next(epochs)
    save_progress(first, tmp_path)
    second = Trainer(config, data)
    assert resume_progress(second, tmp_path) == ()
    list(second.epochs())
    expected, actual = whole.state_dict()[0], second.state_dict()[0]
    assert expected.keys() == actual.keys()
    assert [n for n in expected if not torch.equal(expected[n], actual[n])] == []


def test_the_average_of_frozen_weights_is_these_weights(
    with_batch_norm: TrainConfig, data: ImageData
) -> None:
    config = changed(with_batch_norm, freeze="stages_2", ema_decay=0.9, max_epochs=2)
    trainer = Trainer(config, data)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    list(trainer.epochs())
    after = trainer.model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {n for n in before if n.startswith(("conv_stem", "blocks.0.", "blocks.1."))} <= same
    assert "classifier.weight" not in same


def test_frozen_weights_are_those_that_were_loaded(
    with_batch_norm: TrainConfig, data: ImageData, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    loaded = timm.create_model("mobilenetv3_small_050", num_classes=3).state_dict()
    save_file(loaded, tmp_path / "weights.safetensors")
    config = changed(
        with_batch_norm,
        model={"checkpoint": tmp_path / "weights.safetensors"},
        freeze="backbone",
        ema_decay=0.9,
        max_epochs=1,
    )
    trainer = Trainer(config, data)
    list(trainer.epochs())
    delivered = trainer.model.state_dict()
    backbone = [name for name in loaded if not name.startswith("classifier.")]
    assert [name for name in backbone if not torch.equal(delivered[name], loaded[name])] == []
    assert len(backbone) == len(loaded) - 2


def test_memory_that_runs_out_as_weights_join_leaves_no_trace(
    with_batch_norm: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(with_batch_norm, freeze="backbone", unfreeze_epoch=2, max_epochs=2)
    config = changed(config, model={"name": "sg_former_pico"})
    expected = Trainer(changed(config, optimizer={"micro_batch_size": 10}), data)
    list(expected.epochs())
    scarce = Trainer(changed(config, optimizer={"micro_batch_size": 10}), data)
    epochs = scarce.epochs()
    next(epochs)
    step, failures = torch.optim.AdamW.step, [MemoryError()]

    def fail_once(self: torch.optim.AdamW, *arguments: object) -> object:
        result = step(self, *arguments)
        if failures:  # after the first update of the weights that have joined
            raise failures.pop()
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", fail_once)
    next(epochs)
    assert not failures
    assert scarce.history[1].micro_batch_size == 5
    assert scarce.history[1].train_loss == pytest.approx(expected.history[1].train_loss, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_adamw_of_every_kind_skips_frozen_weights(fused: bool) -> None:
    frozen, trained = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.AdamW([frozen, trained], weight_decay=0.5, fused=fused)
    trained.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(3))
    assert not torch.equal(trained, torch.ones(3))
    assert list(optimizer.state_dict()["state"]) == [1]


def test_two_processes_train_and_unfreeze_as_one(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    config = changed(
        train_config,
        freeze="stages_3",
        unfreeze_epoch=2,
        optimizer={"micro_batch_size": 4, "head_learning_rate_factor": 3.0},
    )
    train(config, tmp_path / "one")
    in_two_processes(train, config, tmp_path / "two")
    one, two = (torch.load(tmp_path / name) for name in ("one", "two"))
    assert torch.allclose(one["rows"][:, :2], two["rows"][:, :2], rtol=1e-4)
    assert (one["weights"] - two["weights"]).abs().mean() < 2e-5


def test_the_forward_pass_is_compiled_anew_for_weights_that_join(
    train_config: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[set[str]] = []

    def compile_none(model: torch.nn.Module) -> torch.nn.Module:
        compiled.append({name for name, p in model.named_parameters() if p.requires_grad})
        return model

    monkeypatch.setattr(torch, "compile", compile_none)
    trainer = Trainer(
        changed(train_config, freeze="backbone", unfreeze_epoch=3, compile=True), data
    )
    list(trainer.epochs())
    every = {name for name, _ in trainer.model.named_parameters()}
    assert compiled == [{"head.weight", "head.bias"}, every]


def test_more_stages_than_the_model_has_are_refused(
    train_config: TrainConfig, data: ImageData
) -> None:
    with pytest.raises(ConfigError, match=r"train\.freeze: sg_former_pico has 4 stages"):
        Trainer(changed(train_config, freeze="stages_5"), data)
