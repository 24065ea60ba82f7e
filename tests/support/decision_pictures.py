"""Pages for docs/images/decisions-*.png: a simulated search, early, half way and at its end.

screenshots.py calls it. The engine is the product's; only the learning curves are made up.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import plotly.graph_objects as go

from hpo.config.loading import load_search_config
from hpo.config.search_space import Params
from hpo.dashboard.figures import study_figures
from hpo.dashboard.study_note import SearchState
from hpo.simulation.simulation import Curve, SimulatedSearch

ROOT: Final = Path(__file__).parents[2]
MAX_EPOCHS: Final = 27
AFTER: Final = {"early": 40, "late": 140, "end": 1000}  # epochs of all trials together
TITLES: Final = {"early": "after 40 epochs", "late": "after 140 epochs", "end": "at the end"}
SIZE: Final = {"width": 860, "height": 400}
OVERRIDES: Final = (
    f"train.max_epochs={MAX_EPOCHS}", "study.num_trials=100", "budget.total_epochs=351",
    "retrain={top_k: 1, seeds: 1, max_share: null}",
)  # fmt: skip


def curve_of(params: Params) -> Curve:
    """Rises as a power law to a value that depends on learning rate and dropouts, with noise."""
    rate = math.log10(float(params["optimizer.learning_rate"] or 0))
    dropout = float(params["model.drop_rate"] or 0) + float(params["model.attn_drop_rate"] or 0)
    last = 0.95 - 0.09 * (rate + 2.6) ** 2 - 0.15 * (dropout - 0.2) ** 2
    epochs = np.arange(1, MAX_EPOCHS + 1)
    noise = np.random.default_rng(abs(hash(rate)) % 2**32).normal(0, 0.004, MAX_EPOCHS)
    slowness = 0.9 + 0.6 * (rate + 2.6)  # a large rate is fast
    values = last - (last - 0.2) * epochs ** -max(slowness, 0.3) + noise
    return Curve(values.tolist(), [1.0] * MAX_EPOCHS)


def moments() -> Iterator[tuple[str, SearchState]]:
    """The search as it stands after each number of epochs, by name."""
    config, _ = load_search_config(ROOT / "search_spaces" / "digits.yaml", list(OVERRIDES))
    search = SimulatedSearch(config, curve_of, 2)
    for name, num_epochs in AFTER.items():
        while search.num_epochs < num_epochs and search.step():
            pass
        study = search.study
        trials = [trial for trial in study.trials() if trial.curve]
        yield name, SearchState(config, study, trials, study.metadata.line, None)


def write_pages(folder: Path) -> Iterator[tuple[str, Path]]:
    """A page with the product's own figure of curves and forecasts, at each moment, by name."""
    for name, state in moments():
        figure = go.Figure(dict(study_figures(state))["curves"])
        figure.update_layout(
            title_text=f"<b>Learning curves {TITLES[name]}</b>; dotted: rungs; fans: forecasts",
            paper_bgcolor="white", plot_bgcolor="white", **SIZE,
        )  # fmt: skip
        path = folder / f"{name}.html"
        figure.write_html(path, include_plotlyjs=True)
        yield f"decisions-{name}", path
