import torch

from sgformer.config import TrainConfig
from sgformer.export.architecture_costs import measure_latency_ms, num_parameters
from sgformer.model.build import create_model


def test_parameters_are_counted_as_the_model_has_them(train_config: TrainConfig) -> None:
    model = create_model(train_config, 10)
    assert num_parameters(train_config, 10) == sum(p.numel() for p in model.parameters())
    assert next(model.parameters()).device == torch.device("cpu")


def test_a_latency_is_of_the_exported_model(train_config: TrainConfig) -> None:
    assert 0 < measure_latency_ms(train_config, 10) < 1000
