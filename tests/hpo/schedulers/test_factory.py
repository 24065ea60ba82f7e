from typing import get_args

import pytest

from hpo.config.schema import Scheduler, SchedulerConfig
from hpo.schedulers.factory import make_stopping_rule


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_the_weak_are_stopped_where_the_rule_says_so(name: Scheduler) -> None:
    config = SchedulerConfig(name=name, min_epochs=1)
    rule = make_stopping_rule(config, 20, maximise=True)
    for number in range(12):
        rule.goes_on(number, {1: 0.9})
    weak_go_on = [rule.goes_on(number, {1: 0.1}) for number in range(12, 24)]
    stops = name in {"asha", "hyperband", "median"}
    assert all(weak_go_on) != stops
    assert any(weak_go_on) == (name not in {"asha", "median"})
