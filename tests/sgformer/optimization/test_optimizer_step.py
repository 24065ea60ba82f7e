import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.model.build import create_model
from sgformer.optimization.optimizer_step import OptimizerStep, class_weights

SAMPLES = np.zeros((8, 2), np.int64)
CPU = torch.device("cpu")


def run_a_step(config: TrainConfig) -> OptimizerStep:
    step = OptimizerStep(create_model(config, 10), 10, config, SAMPLES, CPU)
    images, labels = torch.randn(8, 3, 32, 32), torch.zeros(8, dtype=torch.long)
    options: dict[str, Any] = {"batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.1}
    step.run(images, labels, seed=0, number=1, **options)
    return step


def test_every_configuration_that_a_process_trains_is_compiled(
    train_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
    # Torch's own limit is 8: the ninth dropout rate would no longer be compiled.
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    num_graphs, are_compiled, models = [], [], []
    for rate in (0.0, 0.1, 0.2):
        model = train_config.model.model_copy(update={"drop_rate": rate})
        step = run_a_step(train_config.model_copy(update={"model": model, "compile": True}))
        num_graphs.append(len(graphs))
        are_compiled.append(step.is_compiled)
        models.append(weakref.ref(step.model))
        graphs.clear()
        del step
        gc.collect()
    assert num_graphs == [1, 1, 1]
    assert are_compiled == [True, True, True]
    assert [model() for model in models] == [None, None, None]


def test_a_step_that_torch_did_not_compile_says_so(train_config: TrainConfig) -> None:
    assert not run_a_step(train_config).is_compiled


@pytest.mark.parametrize(
    ("counts", "ratio"),
    [([300, 30, 3], 100.0), ([100_000, 1_000, 1], 100.0), ([40, 40, 20], 2.0)],
)
def test_an_image_of_a_rare_class_weighs_at_most_a_hundred_times_as_much(
    counts: list[int], ratio: float
) -> None:
    labels = np.repeat(np.arange(3), counts)
    weights = class_weights(labels, 3)
    assert weights[2] / weights[0] == pytest.approx(ratio)
    assert weights[labels].mean() == pytest.approx(1)


def test_within_the_bound_classes_weigh_the_same_together() -> None:
    counts = np.array([70, 50, 1])
    weights = class_weights(np.repeat(np.arange(3), counts), 3)
    assert (weights == counts.sum() / (3 * counts)).all()  # to the last bit
