import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import OutOfMemoryError
from sgformer.model.sg_former import SGFormer
from sgformer.training.checkpoint import resume_progress, save_progress
from sgformer.training.epoch_metrics import EpochMetrics
from sgformer.training.trainer import Trainer


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


def without_time(history: list[EpochMetrics]) -> list[tuple[float, ...]]:
    return [(m.epoch, m.train_loss, m.val_loss, m.val_top1, m.learning_rate) for m in history]


def test_it_trains_an_epoch_a_step_to_its_length(
    train_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(train_config, data)
    epochs = trainer.epochs()
    assert next(epochs).epoch == 1
    assert trainer.end_reason is None
    assert [metrics.epoch for metrics in epochs] == [2, 3]
    assert trainer.end_reason == "completed"
    assert all(m.seconds > 0 and m.images_per_second > 0 for m in trainer.history)


def test_it_learns_digits(train_config: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(
        changed(train_config, max_epochs=12, early_stopping={"patience": None}), data
    )
    losses = [metrics.train_loss for metrics in trainer.epochs()]
    assert losses[-1] < losses[0] - 0.5
    assert trainer.evaluate("val").top1 > 0.5


def test_the_last_epochs_metrics_are_those_of_the_model(
    train_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(train_config, data)
    *_, last = trainer.epochs()
    metrics = trainer.evaluate("val")
    assert (metrics.top1, metrics.loss) == (last.val_top1, last.val_loss)


def test_the_same_seed_gives_the_same_curve_and_another_one_another(
    train_config: TrainConfig, data: ImageData
) -> None:
    curves = []
    for seed in (0, 0, 1):
        trainer = Trainer(changed(train_config, seed=seed, max_epochs=1), data)  # type: ignore[arg-type]
        list(trainer.epochs())
        curves.append(without_time(trainer.history))
    assert curves[0] == curves[1] != curves[2]


EVERYTHING = {
    "model": {"drop_rate": 0.2, "attn_drop_rate": 0.1, "drop_path_rate": 0.1},
    "augmentation": {"policy": "guide", "mixup": 0.4, "cutmix": 1.0},
    "optimizer": {"max_grad_norm": 1.0, "layer_decay": 0.8, "micro_batch_size": 8},
    "ema_decay": 0.9,
    "class_balance": "sampling",
}


@pytest.mark.parametrize(
    ("changes", "stop_after"),
    [
        ({}, 1),
        (EVERYTHING, 1),
        (EVERYTHING, 2),
        (EVERYTHING | {"precision": "bf16", "channels_last": True}, 1),
        ({"precision": "fp16", "ema_decay": 0.9}, 2),
    ],
)
def test_a_training_resumed_in_a_new_process_goes_on_bit_for_bit(
    train_config: TrainConfig,
    data: ImageData,
    tmp_path: Path,
    changes: dict,
    stop_after: int,
) -> None:
    config = changed(train_config, **changes)
    whole = Trainer(config, data)
    list(whole.epochs())
    first = Trainer(config, data)
    for _ in range(stop_after):
        next(first.epochs())
        save_progress(first, tmp_path)
    # A fresh interpreter trains the rest, with loading processes, which `first` did not have.
    script = (
        "import sys, json, torch\n"
        "from pathlib import Path\n"
        "from sgformer.training.checkpoint import resume_progress, save_progress\n"
        "from sgformer.config import TrainConfig\n"
        "from sgformer.data.image_data import load_image_data\n"
        "from sgformer.training.trainer import Trainer\n"
        "torch.set_num_threads(int(sys.argv[3]))\n"
        "config = TrainConfig.model_validate_json(sys.argv[1])\n"
        "trainer = Trainer(config, load_image_data(config.data))\n"
        "resume_progress(trainer, Path(sys.argv[2]))\n"
        "for _ in trainer.epochs(): save_progress(trainer, Path(sys.argv[2]))\n"
    )
    resumed_config = changed(config, data={"num_workers": 2})
    arguments = [resumed_config.model_dump_json(), str(tmp_path), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    second = Trainer(config, data)
    resume_progress(second, tmp_path)
    assert without_time(second.history) == without_time(whole.history)
    expected, metadata = whole.state_dict()
    tensors, other_metadata = second.state_dict()
    assert tensors.keys() == expected.keys()
    assert other_metadata["scaler"] == metadata["scaler"]
    assert other_metadata["early_stopping"] == metadata["early_stopping"]
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name


def trained_weights(trainer: Trainer, num_epochs: int = 1) -> torch.Tensor:
    epochs = trainer.epochs()
    for _ in range(num_epochs):
        next(epochs)
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def close(weights: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether weights agree on average: AdamW takes the sign of gradients that round to zero."""
    return bool((weights - others).abs().mean() < 2e-5)


def test_micro_batches_add_up_to_the_batch(train_config: TrainConfig, data: ImageData) -> None:
    whole = changed(
        train_config,
        optimizer={"max_grad_norm": 1.0},
        augmentation={"mixup": 0.5},
        class_balance="loss",  # type: ignore[arg-type]
    )
    parts = changed(whole, optimizer={"micro_batch_size": 7})  # 7 + 7 + 6
    first, second = Trainer(whole, data), Trainer(parts, data)
    weights, others = trained_weights(first), trained_weights(second)
    assert close(weights, others)
    assert first.history[0].train_loss == pytest.approx(second.history[0].train_loss, rel=1e-5)
    assert (first.history[0].micro_batch_size, second.history[0].micro_batch_size) == (20, 7)
    assert whole.fingerprint() == parts.fingerprint()


@dataclass
class ScarceMemory:
    """Makes training forwards of more than `max_images` fail as PyTorch's CPU allocator does.

    The failure is simulated, because a test cannot make a machine run out of memory.
    """

    max_images: int = 10**9
    num_spared: int = 0
    num_failures: int = 0

    def __call__(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if not (isinstance(module, SGFormer) and module.training):
            return
        self.num_spared -= 1
        if self.num_spared < 0 and len(inputs[0]) > self.max_images:
            self.num_failures += 1
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
                "allocate memory: you tried to allocate 99 bytes. Error code 12"
            )


@pytest.fixture
def memory() -> Iterator[ScarceMemory]:
    hook = ScarceMemory()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    yield hook
    handle.remove()


def test_out_of_memory_halves_the_micro_batch_and_restarts_the_epoch(
    train_config: TrainConfig, data: ImageData, memory: ScarceMemory
) -> None:
    config = changed(train_config, max_epochs=2, ema_decay=0.9)  # type: ignore[arg-type]
    whole = Trainer(changed(config, optimizer={"micro_batch_size": 5}), data)
    expected = trained_weights(whole, 2)
    scarce = Trainer(config, data)
    memory.max_images, memory.num_spared = 5, 2  # in the epoch's middle
    weights = trained_weights(scarce, 2)
    assert memory.num_failures == 2  # 20, 10, then 5
    assert torch.equal(weights, expected)
    assert [m.micro_batch_size for m in scarce.history] == [5, 5]
    assert [m.train_loss for m in scarce.history] == [m.train_loss for m in whole.history]
    resumed = Trainer(config, data)
    resumed.load_state_dict(*scarce.state_dict())
    assert resumed.micro_batches.size == 5


def test_memory_that_runs_out_in_a_recovery_halves_once_more(
    train_config: TrainConfig,
    data: ImageData,
    memory: ScarceMemory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(train_config, max_epochs=2, ema_decay=0.9)  # type: ignore[arg-type]
    whole = Trainer(changed(config, optimizer={"micro_batch_size": 5}), data)
    expected = trained_weights(whole, 2)
    load, failures = torch.optim.AdamW.load_state_dict, [MemoryError()]

    def scarce(self: torch.optim.AdamW, state: dict) -> None:
        # What the abandoned step left on the device is gone before the state comes back.
        assert not self.state
        assert all(p.grad is None for group in self.param_groups for p in group["params"])
        if failures:  # with the model's weights restored, and the optimizer's state not
            raise failures.pop()
        load(self, state)

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", scarce)
    scarce_trainer = Trainer(config, data)
    memory.max_images, memory.num_spared = 10, 5  # in the second epoch's middle
    weights = trained_weights(scarce_trainer, 2)
    assert (memory.num_failures, failures) == (1, [])
    assert [m.micro_batch_size for m in scarce_trainer.history] == [20, 5]
    assert close(weights, expected)


def test_when_not_one_image_fits_it_says_so(
    train_config: TrainConfig, data: ImageData, memory: ScarceMemory
) -> None:
    memory.max_images = 0
    trainer = Trainer(train_config, data)
    with pytest.raises(
        OutOfMemoryError,
        match=r"not even one image .*cpu: sg_former_pico at 32 pixels \(train\.model\.name",
    ):
        next(trainer.epochs())


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_memory_that_runs_out_in_the_update_leaves_no_trace(
    train_config: TrainConfig,
    data: ImageData,
    monkeypatch: pytest.MonkeyPatch,
    max_grad_norm: float | None,
) -> None:
    optimizer = {"max_grad_norm": max_grad_norm, "micro_batch_size": 10}
    config = changed(train_config, precision="fp16", optimizer=optimizer)  # type: ignore[arg-type]
    expected = trained_weights(Trainer(config, data))
    step, failures = torch.optim.AdamW.step, [MemoryError()]

    def scarce(self: torch.optim.AdamW, *args: object) -> object:
        if failures:
            raise failures.pop()
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", scarce)
    config = changed(config, optimizer={"micro_batch_size": 20})
    assert torch.equal(trained_weights(Trainer(config, data)), expected)


def test_a_checkpoint_keeps_the_scalers_scale_and_the_patience(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = changed(
        train_config,
        precision="fp16",  # type: ignore[arg-type]
        max_epochs=9,  # type: ignore[arg-type]
        early_stopping={"patience": 3, "min_delta": 1.0},
    )
    first = Trainer(config, data)
    epochs = first.epochs()
    next(epochs), next(epochs)
    tensors, metadata = first.state_dict()
    metadata["scaler"] |= {"scale": 1024.0, "_growth_tracker": 7}
    second = Trainer(config, data)
    second.load_state_dict(tensors, metadata)
    assert second.state_dict()[1]["scaler"] == metadata["scaler"]
    list(second.epochs())
    assert (second.end_reason, second.num_epochs_done) == ("early_stopped", 4)


def test_other_errors_are_not_taken_for_want_of_memory(
    train_config: TrainConfig, data: ImageData
) -> None:
    trainer = Trainer(train_config, data)

    def fail(_module: torch.nn.Module, _inputs: object) -> None:
        raise RuntimeError("shapes do not match")

    trainer.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        next(trainer.epochs())
    assert trainer.micro_batches.size == 20


def test_channels_last_trains_the_same(train_config: TrainConfig, data: ImageData) -> None:
    trainer = Trainer(changed(train_config, channels_last=True), data)  # type: ignore[arg-type]
    weights = trained_weights(trainer)
    assert close(weights, trained_weights(Trainer(train_config, data)))


def test_an_odd_batch_can_be_mixed(train_config: TrainConfig, data: ImageData) -> None:
    for batch_size in (1, 19):
        config = changed(
            train_config, optimizer={"batch_size": batch_size}, augmentation={"mixup": 1.0}
        )
        assert math.isfinite(next(Trainer(config, data).epochs()).train_loss)


@pytest.mark.slow
def test_a_compiled_model_trains_the_same(train_config: TrainConfig, data: ImageData) -> None:
    compiled = Trainer(changed(train_config, compile=True, max_epochs=1), data)  # type: ignore[arg-type]
    plain = Trainer(changed(train_config, max_epochs=1), data)  # type: ignore[arg-type]
    (first,), (second,) = compiled.epochs(), plain.epochs()
    assert first.train_loss == pytest.approx(second.train_loss, rel=1e-3)
    assert first.val_loss == pytest.approx(second.val_loss, rel=1e-2)


def test_it_stops_early(train_config: TrainConfig, data: ImageData) -> None:
    config = changed(train_config, max_epochs=9, early_stopping={"patience": 1, "min_delta": 1.0})  # type: ignore[arg-type]
    trainer = Trainer(config, data)
    assert len(list(trainer.epochs())) == 2
    assert trainer.end_reason == "early_stopped"


def test_a_loss_that_is_not_finite_ends_it_as_diverged(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = changed(train_config, optimizer={"learning_rate": 1e30, "warmup_epochs": 0})
    trainer = Trainer(config, data)
    *_, last = trainer.epochs()
    assert trainer.end_reason == "diverged"
    assert math.isnan(last.val_top1)
    assert len(trainer.history) < 3


@dataclass
class Overflow:
    """Makes the logits of some training forwards overflow, counted from 0."""

    forwards: range | tuple[int, ...] = ()
    num_done: int = 0

    def __call__(self, module: torch.nn.Module, _inputs: object, out: torch.Tensor) -> object:
        if not (isinstance(module, SGFormer) and module.training):
            return out
        self.num_done += 1
        return out * math.inf if self.num_done - 1 in self.forwards else out


@pytest.fixture
def overflow() -> Iterator[Overflow]:
    hook = Overflow()
    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    yield hook
    handle.remove()


def test_a_loss_that_overflows_under_fp16_skips_its_step_only(
    train_config: TrainConfig, data: ImageData, overflow: Overflow
) -> None:
    config = changed(
        train_config,
        precision="fp16",  # type: ignore[arg-type]
        optimizer={"max_grad_norm": 1.0, "learning_rate": 1e-9, "min_learning_rate": 0},
    )
    (undisturbed,) = [next(Trainer(config, data).epochs())]
    overflow.forwards, overflow.num_done = (1,), 0
    trainer = Trainer(config, data)
    metrics = next(trainer.epochs())
    assert trainer.end_reason is None
    # The mean is over the two other steps, in which the learning rate changes hardly anything.
    assert metrics.train_loss == pytest.approx(undisturbed.train_loss, rel=0.05)
    assert trainer.state_dict()[1]["scaler"]["scale"] == 2.0**15  # halved once
    assert math.isfinite(metrics.val_loss)


@pytest.mark.parametrize(
    ("forwards", "precision", "end_reason"),
    [
        (range(19), "fp16", None),
        (range(1, 21), "fp16", "diverged"),
        ((*range(15), *range(16, 30)), "fp16", None),
        (range(30), "fp16", "diverged"),
        ((7,), "bf16", "diverged"),
        ((7,), "float32", "diverged"),
    ],
)
def test_twenty_losses_in_a_row_that_overflow_are_a_divergence(
    train_config: TrainConfig,
    data: ImageData,
    overflow: Overflow,
    forwards: tuple[int, ...],
    precision: str,
    end_reason: str | None,
) -> None:
    config = changed(train_config, precision=precision, optimizer={"batch_size": 2})  # type: ignore[arg-type]
    overflow.forwards = forwards
    trainer = Trainer(config, data)
    metrics = next(trainer.epochs())
    assert trainer.end_reason == end_reason
    assert math.isfinite(metrics.train_loss) is (end_reason is None)


def test_validation_has_the_trainings_precision(
    train_config: TrainConfig, data: ImageData
) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        trainer = Trainer(changed(train_config, precision=precision), data)  # type: ignore[arg-type]
        losses[precision] = trainer.evaluate("val").loss  # of the same weights
        assert trainer.numerics.precision == precision
    assert 0 < abs(losses["bf16"] - losses["float32"]) < 0.01


def test_gradient_checkpointing_trains_the_same(
    train_config: TrainConfig, data: ImageData
) -> None:
    config = changed(train_config, model={"drop_rate": 0.2, "drop_path_rate": 0.2})
    plain, thrifty = (
        Trainer(changed(config, grad_checkpointing=on), data)  # type: ignore[arg-type]
        for on in (False, True)
    )
    forwards = []

    def count(module: torch.nn.Module, _inputs: object) -> None:
        if module.training:
            forwards.append(module)

    thrifty.model.stages[0].blocks[0].register_forward_pre_hook(count)
    assert close(trained_weights(plain), trained_weights(thrifty))
    assert len(forwards) == 2 * 3  # each of three steps computes the block twice
    assert plain.config.fingerprint() == thrifty.config.fingerprint()


def test_every_way_of_dropping_reaches_the_model(
    train_config: TrainConfig, data: ImageData
) -> None:
    rates = {"drop_rate": 0.1, "proj_drop_rate": 0.2, "attn_drop_rate": 0.3, "drop_path_rate": 0.4}
    model = Trainer(changed(train_config, model=rates), data).model
    dropouts = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.1, 0.2, 0.3}
    assert model.stages[3].blocks[0].drop_path.drop_prob == pytest.approx(0.4)
    assert model.stages[3].blocks[0].attn.attn_drop == 0.3


def test_the_description_rebuilds_what_was_trained(
    train_config: TrainConfig, data: ImageData
) -> None:
    description = Trainer(train_config, data).description()
    assert TrainConfig.model_validate(description["config"]) == train_config.resolved()
    assert description["classes"] == [str(d) for d in range(10)]


def test_epochs_are_measured_on_a_part_of_val_and_an_evaluation_on_all(
    train_config: TrainConfig, data: ImageData
) -> None:
    whole, part = (
        Trainer(changed(train_config, eval_images=n, max_epochs=2), data)  # type: ignore[arg-type]
        for n in (None, 13)
    )
    list(whole.epochs()), list(part.epochs())
    assert all(round(13 * m.val_top1, 6).is_integer() for m in part.history)
    assert [m.train_loss for m in part.history] == [m.train_loss for m in whole.history]
    assert [m.val_loss for m in part.history] != [m.val_loss for m in whole.history]
    assert part.evaluate("val") == whole.evaluate("val")
    assert part.evaluate("val").num_images == 30
