from collections import Counter

import numpy as np
import torch
from configs import changed

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.model.build import create_model
from sgformer.training.exemplars import choose_exemplars, herding_order

CPU = torch.device("cpu")


def test_an_extendable_class_is_herded_as_ones_own_greedy_choice_is() -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    unit = (features / features.norm(dim=1, keepdim=True)).double().numpy()
    chosen: list[int] = []
    for _ in range(6):  # the definition, without a running sum
        left = [i for i in range(12) if i not in chosen]
        chosen.append(
            min(left, key=lambda i: np.linalg.norm(unit.mean(0) - unit[[*chosen, i]].mean(0)))
        )
    assert herding_order(features, 6) == chosen
    assert herding_order(features, 3) == chosen[:3]
    assert sorted(herding_order(features, 20)) == list(range(12))


def test_what_an_extendable_model_keeps_is_by_rank_of_every_class(
    train_config: TrainConfig,
) -> None:
    data = load_image_data(train_config.data)
    model = create_model(changed(train_config), 10)
    kept = choose_exemplars(train_config, model, data, 4, CPU)
    assert {kind: len(samples) for kind, samples in kept.items()} == {
        "herding": 40, "random": 40, "val": 30, "test": 20,
    }  # fmt: skip
    train = {tuple(row) for row in data.samples("train").tolist()}
    for kind in ("herding", "random"):
        rows = [tuple(row) for row in kept[kind].tolist()]
        assert set(rows) <= train
        assert len(set(rows)) == 40
        assert Counter(label for _, label in rows[:10]) == Counter(range(10))
    assert kept["herding"].tolist() != kept["random"].tolist()
    again = choose_exemplars(train_config, model, data, 4, CPU)
    assert all(np.array_equal(again[kind], kept[kind]) for kind in kept)
    fewer = choose_exemplars(train_config, model, data, 2, CPU)
    assert fewer["herding"].tolist() == kept["herding"][:20].tolist()
