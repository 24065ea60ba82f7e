"""Tests of benchmarks/surrogate_quality.py on the committed curves."""

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CURVES = BENCHMARKS / "curves/own.json.gz"


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_it_predicts_recorded_configurations_that_it_has_not_learnt_from() -> None:
    from beds import load_task
    from surrogate_quality import NUM_NEW, drawn

    task = load_task("own", CURVES, "digits")
    assert task.params is not None
    known, new = drawn(task, None, 1000, seed=0)
    assert all(one in task.params for one in known + new)
    assert not any(one in known for one in new)
    assert len(known) + len(new) == len(task.params)
    assert len(new) == min(NUM_NEW, len(task.params) // 3)
    assert drawn(task, None, 1000, seed=1) != (known, new)


def test_the_figures_of_a_task_are_finite_and_its_intervals_nested() -> None:
    from beds import load_task
    from surrogate_quality import measured

    figures = measured(load_task("own", CURVES, "digits"), seed=0, num_rows=60)
    assert np.isfinite(list(figures.values())).all()
    for what in ("new", "stopped"):
        assert figures[f"{what} 50 %"] <= figures[f"{what} 90 %"] <= 1
