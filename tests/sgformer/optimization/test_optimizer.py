import pytest
import timm
import torch

from sgformer.config import OptimizerConfig
from sgformer.model.sg_former import SGFormer
from sgformer.optimization.optimizer import create_optimizer, learning_rate_at, set_learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, warmup_epochs=2, min_learning_rate=0.1)


def rates(config: OptimizerConfig, max_epochs: int = 10, steps: int = 5) -> list[float]:
    return [learning_rate_at(i, steps, max_epochs, config) for i in range(max_epochs * steps)]


def test_the_rate_rises_linearly_then_falls_as_torchs_cosine() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.1)
    expected = []
    for _ in range(40):
        expected.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    actual = rates(CONFIG)
    assert actual[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert actual[10:] == pytest.approx(expected)


def test_a_constant_rate_is_constant_after_the_warm_up() -> None:
    actual = rates(CONFIG.model_copy(update={"lr_schedule": "constant"}))
    assert set(actual[10:]) == {1.0}


@pytest.mark.parametrize("warmup", [0, 0.5, 10, 100])
def test_any_warm_up_gives_rates_above_zero_and_not_above_the_maximum(warmup: float) -> None:
    actual = rates(CONFIG.model_copy(update={"warmup_epochs": warmup}))
    assert all(0 < rate <= 1.0 for rate in actual)


def test_norms_biases_and_the_position_table_are_not_decayed() -> None:
    model = SGFormer(num_classes=3, embed_dims=(16, 32, 32, 64), num_heads=(2, 2, 2, 4),
                     depths=(1, 1, 1, 1), img_size=32)  # fmt: skip
    optimizer = create_optimizer(model, OptimizerConfig(weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {
        names[id(p)] for group in optimizer.param_groups if group["weight_decay"]
        for p in group["params"]
    }  # fmt: skip
    expected = {name for name, p in model.named_parameters() if p.ndim > 1 and name != "pos_embed"}
    assert decayed == expected
    assert len({id(p) for g in optimizer.param_groups for p in g["params"]}) == len(names)


def test_layer_decay_lowers_the_rate_away_from_the_head() -> None:
    model = SGFormer(num_classes=3, embed_dims=(16, 32, 32, 64), num_heads=(2, 2, 2, 4),
                     depths=(1, 1, 1, 1), img_size=32)  # fmt: skip
    optimizer = create_optimizer(model, OptimizerConfig(layer_decay=0.5, weight_decay=0.1))
    set_learning_rate(optimizer, 0.1)
    rate_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rate_of) == len(list(model.parameters()))
    assert rate_of[id(model.head.weight)] == 0.1
    stem, middle = model.stem_norm.weight, model.stages[2].blocks[0].norm1.weight
    assert rate_of[id(stem)] < rate_of[id(middle)] < 0.1
    decays = {
        g["weight_decay"] for g in optimizer.param_groups if model.pos_embed in set(g["params"])
    }
    assert decays == {0.0}


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_the_heads_rate_is_a_multiple_and_its_weight_decay_stays(
    layer_decay: float | None,
) -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=2, num_classes=3)
    config = OptimizerConfig(layer_decay=layer_decay, weight_decay=0.1)
    plain = create_optimizer(model, config)
    scaled = create_optimizer(model, config.model_copy(update={"head_learning_rate_factor": 10.0}))
    settings = []
    for optimizer in (plain, scaled):
        set_learning_rate(optimizer, 0.1)
        groups = optimizer.param_groups
        settings.append({id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]})
    before, after = settings
    assert before.keys() == after.keys() == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        (rate, decay), (new_rate, new_decay) = before[id(parameter)], after[id(parameter)]
        factor = 10.0 if name.startswith("head") else 1.0  # head and head_dist
        assert new_rate == pytest.approx(factor * rate)
        assert new_decay == decay
