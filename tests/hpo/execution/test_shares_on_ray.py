"""Trials that take different shares of a pretended GPU, on a real Ray, without training."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from nothing_worker import NUM_EPOCHS, trains_nothing
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import TrialResources
from hpo.execution.tuning import run_trials
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus
from sgformer.data.image_cache import ImagesId

SMALL, LARGE = "sg_former_pico", "sg_former_nano"
HALF = TrialResources(1, 0.5, 2)
RESOURCES = replace(
    HALF,
    by_architecture=(
        ({"model.name": SMALL}, HALF),
        ({"model.name": LARGE}, TrialResources(1, 1.0, 1)),
    ),
)
NUM_SMALL_BEFORE, NUM_SMALL_AFTER = 3, 6


class Silent(SearchObserver):
    """Ignores all events."""


@pytest.fixture
def _one_gpu() -> Iterator[None]:
    """A Ray with a GPU that this machine need not have."""
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    names = [SMALL] * NUM_SMALL_BEFORE + [LARGE] + [SMALL] * NUM_SMALL_AFTER
    trials = [
        {"model.name": name, "optimizer.learning_rate": 0.001 * (1 + i / 10)}
        for i, name in enumerate(names)
    ]
    overrides = [
        f"space.model.name={{type: categorical, choices: [{SMALL}, {LARGE}]}}",
        f"study.num_trials={len(trials) + 1}",
        f"study.enqueue={json.dumps(trials)}",
        f"train.max_epochs={NUM_EPOCHS}",
        "scheduler={name: none}",
    ]
    return load_search_config(search_file, overrides)[0]


@pytest.mark.usefixtures("_one_gpu")
def test_a_large_trial_gets_its_gpu_alone_though_small_ones_keep_coming(
    config: SearchConfig, tmp_path: Path
) -> None:
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    run = RunFolder(tmp_path / "run")
    run.make()
    run_trials(
        config, run, study, ImagesId("", ""), RESOURCES, Silent(), trains_nothing(seconds=0.5)
    )
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialStatus.COMPLETE] * len(trials)
    assert all(trial.num_epochs == NUM_EPOCHS for trial in trials)
    rows = [json.loads(line) for line in (run.path / "epochs.jsonl").read_text().splitlines()]
    shares = {
        trial.number: 1.0 if trial.params["model.name"] == LARGE else 0.5 for trial in trials
    }
    assert {number: share for number, share, *_ in rows} == shares
    assert len(rows) == NUM_EPOCHS * len(trials)  # none was trained twice
    assert len({gpu for _, _, gpu, *_ in rows}) == 1
    overlaps = [
        {one, other}
        for (one, *_, begin, end), (other, *_, begins, ends) in itertools.combinations(rows, 2)
        if begins < end and begin < ends
    ]
    (large,) = (number for number, share in shares.items() if share == 1)
    assert overlaps  # the small ones share the GPU
    assert not [pair for pair in overlaps if large in pair]
    order = [number for number, *_ in rows]
    # It does not wait until the small ones are through.
    assert order.index(large) < len(order) - NUM_EPOCHS * NUM_SMALL_AFTER // 2
