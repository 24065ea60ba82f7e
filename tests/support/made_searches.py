"""A search over learning rate and dropout whose trainings are a formula."""

import math
from pathlib import Path

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.simulation.simulation import Curve

MAX_EPOCHS = 12


def config_of(search_file: Path, scheduler: str = "freeze_thaw") -> SearchConfig:
    overrides = [
        f"scheduler={{name: {scheduler}}}", f"train.max_epochs={MAX_EPOCHS}",
        "study.num_trials=24",
    ]  # fmt: skip
    return load_search_config(search_file, overrides)[0]


def curve_of(params: Params) -> Curve:
    rate = math.log10(float(params["optimizer.learning_rate"] or 0)) + 3
    final = 0.9 - 0.2 * rate**2 - 0.1 * float(params["model.drop_rate"] or 0)
    values = [final * (1 - math.exp(-epoch / 3)) for epoch in range(1, MAX_EPOCHS + 1)]
    return Curve(values, [2.0] * MAX_EPOCHS)
