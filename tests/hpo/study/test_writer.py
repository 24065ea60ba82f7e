"""Tests that TrialWriter writes to the storage what Optuna would have written."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.study.direct_writer import DirectWriter, trial_writer
from hpo.study.storage import open_storage
from hpo.study.writer import Ending, OptunaWriter, TrialWriter

DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-5, 1.0, log=True),
    "size": CategoricalDistribution(["a", "b", None]),
    "number": IntDistribution(1, 9, step=2),
}
PARAMS = {"rate": 0.01, "size": "b", "number": 3}


def write(writer: TrialWriter, study: optuna.Study) -> None:
    """Writes a trial of each kind; some writes are repeated, as after a lost answer."""
    study.enqueue_trial({"rate": 0.5})
    (waiting,) = study.trials
    for again in (False, True):
        writer.start(waiting._trial_id, PARAMS, DISTRIBUTIONS, again=again)
    missed = {"latency_ms <= 5": 0.25, "num_parameters <= 1000": -0.5}
    for number, (state, values, value) in enumerate(
        [
            (TrialState.COMPLETE, {1: 0.5, 2: 0.75}, 0.75),
            (TrialState.PRUNED, {1: math.nan, 2: math.inf}, None),
            (TrialState.PRUNED, {1: -math.inf, 2: 0.25}, 0.25),
            (TrialState.FAIL, {}, None),
        ],
        start=1,
    ):
        assert writer.create(number - 1, PARAMS, DISTRIBUTIONS) is None
        trial_id, given = writer.create(number, PARAMS, DISTRIBUTIONS) or (-1, -1)
        assert given == number
        attributes = {"list": [1, {"a": None}], "text": "ä", "number": number}
        for again in (False, True):
            writer.report(trial_id, values, again=again)
        for again in (False, True):
            told = None if value is None else [value]
            writer.finish(trial_id, Ending(state, told, attributes, missed), again=again)


def test_several_values_are_kept_and_the_curve_beside_them(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    writer = trial_writer(storage, study._study_id)
    trial_id, _ = writer.create(0, PARAMS, DISTRIBUTIONS) or (-1, -1)
    writer.report(trial_id, {1: 0.5, 2: 0.75})
    writer.finish(trial_id, Ending(TrialState.COMPLETE, [0.75, 4.0], {}, {"a <= 1": 3.0}))
    (trial,) = study.trials
    assert (trial.values, trial.intermediate_values) == ([0.75, 4.0], {1: 0.5, 2: 0.75})
    assert trial.constraints == {"a <= 1": 3.0}


def as_read(trial: FrozenTrial) -> tuple[str, ...]:
    names = (
        "number", "state", "params", "distributions", "user_attrs", "system_attrs", "values",
        "intermediate_values",
    )  # fmt: skip
    return tuple(repr(getattr(trial, name)) for name in names)


def test_every_storage_reads_back_what_optunas_methods_would_have_left(storage_url: str) -> None:
    storage = open_storage(storage_url)
    studies = []
    for kind in (trial_writer, OptunaWriter):
        study = optuna.create_study(storage=storage)
        write(kind(storage, study._study_id), study)
        studies.append(study.trials)
    direct, by_optuna = studies
    assert [as_read(trial) for trial in direct] == [as_read(trial) for trial in by_optuna]


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock is nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize("kind", [trial_writer, OptunaWriter])
def test_a_trial_starts_and_ends_when_it_does(
    storage_url: str, kind: Callable[[BaseStorage, int], TrialWriter]
) -> None:
    storage = open_storage(storage_url)
    study = optuna.create_study(storage=storage)
    moments = [datetime.now()]
    writer = kind(storage, study._study_id)
    trial_id, _ = writer.create(0, PARAMS, DISTRIBUTIONS) or (-1, -1)
    moments.append(datetime.now())
    writer.finish(trial_id, Ending(TrialState.FAIL, None, {}))
    moments.append(datetime.now())
    (trial,) = study.trials
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert moments[0] <= trial.datetime_start <= moments[1] <= trial.datetime_complete
    assert trial.datetime_complete <= moments[2]


def test_a_module_of_optunas_that_has_moved_is_done_without(
    storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages._rdb.models", None)
    monkeypatch.delattr("optuna.storages._rdb.models", raising=False)
    assert isinstance(trial_writer(open_storage(storage_url), 1), OptunaWriter)


def test_a_schema_that_is_not_known_is_left_to_optuna(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    assert isinstance(trial_writer(storage, 1), DirectWriter)
    monkeypatch.setattr("hpo.study.tables.KNOWN_SCHEMA", "of another Optuna")
    assert isinstance(trial_writer(storage, 1), OptunaWriter)
