from pathlib import Path
from typing import get_args

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import PAUSING, Scheduler, SearchConfig
from hpo.schedulers.base import Decision
from hpo.schedulers.factory import make_scheduler

PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.1}


def config_of(search_file: Path, name: Scheduler) -> SearchConfig:
    overrides = [f"scheduler={{name: {name}, min_epochs: 1}}", "train.max_epochs=20"]
    return load_search_config(search_file, overrides)[0]


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_the_weak_stop_or_compete_where_the_scheduler_says_so(
    search_file: Path, name: Scheduler
) -> None:
    scheduler = make_scheduler(config_of(search_file, name))
    decisions = []
    for number in range(24):
        scheduler.started(number, PARAMS)
        scheduler.reported(number, {1: 0.9 if number < 12 else 0.1})
        decisions.append(scheduler.on_epoch(number))
    weak = decisions[12:]
    if name in PAUSING:
        assert decisions[1:] == [Decision.PAUSE] * 23
    else:
        assert (Decision.STOP in weak) == (name != "none")
        assert (Decision.CONTINUE in weak) == (name in {"none", "hyperband"})
    assert decisions[0] == Decision.CONTINUE
    assert scheduler.may_pause == (name in PAUSING)


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_a_trial_that_runs_comes_to_its_next_stop(search_file: Path, name: Scheduler) -> None:
    scheduler = make_scheduler(config_of(search_file, name))
    assert scheduler.first_rung == (20 if name == "none" else 1)
    assert scheduler.next_stop(0, 0) == 20  # the default is trained to its end
    assert scheduler.next_stop(1, 0) == scheduler.first_rung
