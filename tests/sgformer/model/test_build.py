import pytest

from sgformer.config import TrainConfig
from sgformer.model.build import create_model


def test_the_model_has_the_configured_size_classes_input_and_rates() -> None:
    model = {"name": "sg_former_nano", "drop_rate": 0.1, "drop_path_rate": 0.2}
    config = TrainConfig.model_validate({"model": model, "data": {"image_size": 64}})
    built = create_model(config, num_classes=7)
    assert built.default_cfg["architecture"] == "sg_former_nano"
    assert (built.head.out_features, built.grid) == (7, (16, 16))
    assert built.head_drop.p == 0.1
    assert built.stages[3].blocks[0].drop_path.drop_prob == pytest.approx(0.2)
