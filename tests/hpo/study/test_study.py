import math
import re
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from postgres import PostgresServer
from studies import best_trial, create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import default_params
from hpo.errors import StudyError
from hpo.samplers.proxy_study import ProxyStudy
from hpo.study.direct_writer import DirectWriter
from hpo.study.lease import leased
from hpo.study.storage import open_storage
from hpo.study.study import SearchStudy
from hpo.study.writer import OptunaWriter


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, name=f"study-{uuid.uuid4().hex[:8]}")[0]


def reopen(url: str, config: SearchConfig) -> SearchStudy:
    return SearchStudy.open(url, config.study, config.space)


def changed(config: SearchConfig, **study: Any) -> SearchConfig:
    values = config.model_dump()
    values["study"] |= study
    return SearchConfig.model_validate(values)


def test_states_curves_values_and_attributes_are_kept(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    first, second, third = study.ask(), study.ask(), study.ask()
    study.report(first.number, {1: 0.5, 2: 0.75})
    study.finish(first.number, "COMPLETE", {"end_reason": "completed"}, 0.75)
    study.report(second.number, {1: 0.25})
    study.finish(second.number, "PRUNED", {"end_reason": "stopped at rung 1"})
    study.finish(third.number, "FAIL", {"error": {"type": "ValueError", "message": "no"}})
    trials = reopen(storage_url, config).trials()
    assert [(t.number, t.state) for t in trials] == [(0, "COMPLETE"), (1, "PRUNED"), (2, "FAIL")]
    assert trials[0].curve == {1: 0.5, 2: 0.75}
    assert (trials[0].value, trials[0].num_epochs) == (0.75, 2)
    assert trials[1].curve == {1: 0.25}
    assert trials[2].attributes["error"]["type"] == "ValueError"
    best = best_trial(reopen(storage_url, config), config)
    assert best is not None
    assert best.number == 0


SEVERAL = {
    "objectives": [["latency_ms", "minimize"], ["val_top1", "maximize"]],
    "constraints": ["latency_ms <= 5"],
    "sampler": "tpe",
    "select": "best",
}


def test_several_objectives_keep_curves_values_and_constraints(
    storage_url: str, config: SearchConfig
) -> None:
    config = changed(config, **SEVERAL)
    study = create_study(storage_url, config)
    for value, latency in ((0.75, 2.0), (0.875, 7.5), (0.5, 4.0)):
        number = study.ask().number
        study.report(number, {1: 0.25, 2: value})
        missed = {"latency_ms <= 5": latency / 5 - 1}
        study.finish(number, "COMPLETE", {"latency_ms": latency}, value, missed)
    stopped = study.ask().number
    study.report(stopped, {1: 0.25})
    again = reopen(storage_url, config)
    again.report(stopped, {1: 0.25, 2: 0.375})
    again.finish(stopped, "PRUNED", {"latency_ms": 1.0})
    trials = reopen(storage_url, config).trials()
    assert [trial.value for trial in trials] == [0.75, 0.875, 0.5, None]
    assert trials[1].curve == {1: 0.25, 2: 0.875}
    assert trials[1].constraints == {"latency_ms <= 5": 0.5}
    assert trials[stopped].curve == {1: 0.25, 2: 0.375}
    assert study.optuna_study.trials[0].values == [2.0, 0.75]
    assert study.optuna_study.metric_names == ["latency_ms", "val_top1"]
    best = best_trial(again, config)
    assert best is not None
    assert best.number == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_a_reopened_study_of_several_objectives_samples_on(
    tmp_path: Path, config: SearchConfig, sampler: str
) -> None:
    config = changed(config, **SEVERAL | {"sampler": sampler})

    def sample(url: str, *, reopening: bool) -> list[dict]:
        study = create_study(url, config)
        params = []
        for i in range(9):
            if reopening and i % 3 == 2:
                study = reopen(url, config)
            proposal = study.ask()
            params.append(proposal.params)
            study.report(proposal.number, {1: math.sin(i)})
            latency = 1.0 + i % 2
            state, value = ("PRUNED", None) if i % 4 == 1 else ("COMPLETE", math.sin(i))
            missed = {"latency_ms <= 5": 0.5 if i % 3 == 0 else -0.5}
            study.finish(proposal.number, state, {"latency_ms": latency}, value, missed)
        return params

    whole = sample(f"sqlite:///{tmp_path / 'a.db'}", reopening=False)
    assert whole == sample(f"sqlite:///{tmp_path / 'b.db'}", reopening=True)


def test_a_diverged_epoch_is_kept_as_nan(storage_url: str, config: SearchConfig) -> None:
    study = create_study(storage_url, config)
    number = study.ask().number
    study.report(number, {1: math.nan})
    study.finish(number, "PRUNED", {"end_reason": "diverged"})
    (trial,) = reopen(storage_url, config).trials()
    assert math.isnan(trial.curve[1])
    assert (trial.state, trial.value) == ("PRUNED", None)
    study.ask()  # the sampler accepts the NaN


def test_the_first_trial_is_the_default_then_those_enqueued(
    storage_url: str, config: SearchConfig
) -> None:
    wanted = {"optimizer.learning_rate": 3e-4, "model.drop_rate": 0.25}
    study = create_study(storage_url, changed(config, enqueue=[wanted]))
    assert study.ask().params == default_params(config.train, config.space)
    assert study.ask().params == wanted
    assert study.ask().params != wanted


def test_an_interrupted_trial_goes_on_under_its_number(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    study.ask()
    number = study.ask().number
    study.report(number, {1: 0.5, 2: 0.6})
    again = reopen(storage_url, config)
    proposals = again.interrupted()
    assert [(p.number, p.num_epochs_reported) for p in proposals] == [(0, 0), (1, 2)]
    assert proposals[0].params == default_params(config.train, config.space)
    again.report(1, {1: 0.9, 2: 0.9, 3: 0.7})  # a replay does not change what was told
    again.finish(1, "COMPLETE", {}, 0.7)
    assert again.trials()[1].curve == {1: 0.5, 2: 0.6, 3: 0.7}
    assert again.ask().number == 2


def test_the_first_trials_are_not_added_twice(storage_url: str, config: SearchConfig) -> None:
    study = create_study(storage_url, config)
    default = default_params(config.train, config.space)
    study.enqueue_first_trials(default)
    assert study.ask().params == default
    reopen(storage_url, config).enqueue_first_trials(default)
    assert study.ask().params != default


def test_a_trial_that_a_crash_left_half_sampled_is_completed(
    tmp_path: Path, config: SearchConfig
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    SearchStudy.create(url, config.study, config.space)
    raw = optuna.load_study(study_name=config.study.name, storage=url)
    half = raw.ask()
    path, parameter = next(iter(config.space.items()))
    value = parameter.suggest(half, path)
    (proposal,) = reopen(url, config).interrupted()
    assert proposal.params.keys() == config.space.keys()
    assert proposal.params[path] == value
    assert dict(raw.trials[0].params) == proposal.params


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "cmaes", "nsga2", "nsga3"])
def test_a_reopened_study_samples_what_an_unbroken_one_would(
    tmp_path: Path, config: SearchConfig, sampler: str
) -> None:
    config = changed(config, sampler=sampler)

    def sample(url: str, *, reopening: bool) -> list[dict]:
        study = create_study(url, config)
        params = []
        for i in range(9):
            if reopening and i % 3 == 2:
                study = reopen(url, config)
            proposal = study.ask()
            params.append(proposal.params)
            study.finish(proposal.number, "COMPLETE", {}, math.sin(i))
        return params

    whole = sample(f"sqlite:///{tmp_path / 'a.db'}", reopening=False)
    broken = sample(f"sqlite:///{tmp_path / 'b.db'}", reopening=True)
    assert whole == broken
    assert len({tuple(params.values()) for params in whole}) > 6


def theirs(url: str, config: SearchConfig) -> optuna.Study:
    """The study as another program opens it with Optuna."""
    return optuna.load_study(study_name=config.study.name, storage=open_storage(url))


def test_a_trial_that_another_program_enqueues_is_run_next_under_its_own_number(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    other = theirs(storage_url, config)
    assert study.ask().number == 0
    other.enqueue_trial({"optimizer.learning_rate": 3e-4, "model.drop_rate": 0.25})
    other.enqueue_trial({"model.drop_rate": 0.5})
    with leased(study):
        second, third, fourth = study.ask(), study.ask(), study.ask()
        assert [one.number for one in (second, third, fourth)] == [1, 2, 3]
        assert second.params["optimizer.learning_rate"] == 3e-4
        assert (second.params["model.drop_rate"], third.params["model.drop_rate"]) == (0.25, 0.5)
        assert third.params.keys() == config.space.keys()
        for number in range(4):
            study.report(number, {1: 0.5})
            study.finish(number, "COMPLETE", {}, 0.5)
    assert [(t.number, t.state) for t in reopen(storage_url, config).trials()] == [
        (number, "COMPLETE") for number in range(4)
    ]


def test_a_trial_that_another_program_enqueues_at_the_same_moment_has_a_number_of_its_own(
    storage_url: str, config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = create_study(storage_url, config), theirs(storage_url, config)
    assert study.ask().number == 0
    wanted = [0.25, 0.5]
    draw = ProxyStudy.draw

    def enqueues_meanwhile(sampling: ProxyStudy, number: int, *fixed: Any) -> Any:
        if wanted:
            other.enqueue_trial({"model.drop_rate": wanted.pop()})
        return draw(sampling, number, *fixed)

    monkeypatch.setattr(ProxyStudy, "draw", enqueues_meanwhile)
    proposals = [study.ask() for _ in range(4)]
    assert [one.number for one in proposals] == [1, 2, 3, 4]
    assert [one.params["model.drop_rate"] for one in proposals[:2]] == [0.5, 0.25]
    assert [trial.number for trial in other.get_trials()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model.drop_rate": 7.5}, r"model\.drop_rate=7\.5: expected 0\.\.0\.\d"),
        ({"model.drop_rate": "much"}, r"model\.drop_rate='much': expected"),
        ({"learning_rate": 0.1}, r"learning_rate=0\.1: the search space has no such parameter"),
    ],
)
def test_an_enqueued_trial_that_the_space_does_not_have_is_refused_and_says_why(
    storage_url: str, config: SearchConfig, params: dict[str, Any], message: str
) -> None:
    study = create_study(storage_url, config)
    assert study.ask().refused == ""
    theirs(storage_url, config).enqueue_trial(params)
    refused = study.ask()
    assert refused.number == 1
    assert refused.params.keys() == config.space.keys()
    assert re.search(message, refused.refused)
    default, again = reopen(storage_url, config).interrupted()  # the driver died here
    assert again == refused
    assert default.refused == ""


def test_a_trial_that_another_program_adds_takes_a_number(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    params = study.ask().params
    other = theirs(storage_url, config)
    distributions = other.get_trials()[0].distributions
    other.add_trial(optuna.create_trial(value=0.25, params=params, distributions=distributions))
    assert study.ask().number == 2
    study.report(0, {1: 0.5})
    assert [trial.number for trial in study.trials()] == [0, 1, 2]


def test_looking_at_what_waits_writes_nothing(storage_url: str, config: SearchConfig) -> None:
    SearchStudy.create(storage_url, config.study, config.space)
    half = theirs(storage_url, config).ask()
    path, parameter = next(iter(config.space.items()))
    parameter.suggest(half, path)
    study = reopen(storage_url, config)
    assert (study.has_waiting, study.is_exhausted) == (False, False)
    assert study.trials()[0].params.keys() == {path}
    (proposal,) = study.interrupted()
    assert study.trials()[0].params == proposal.params
    assert proposal.params.keys() == config.space.keys()


def test_optunas_own_tools_read_the_study(tmp_path: Path, config: SearchConfig) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = create_study(url, config)
    number = study.ask().number
    study.report(number, {1: 0.5})
    study.finish(number, "COMPLETE", {}, 0.5)
    loaded = optuna.load_study(study_name=config.study.name, storage=url)
    assert loaded.direction.name == "MAXIMIZE"
    assert loaded.metric_names == ["val_top1"]
    assert loaded.best_trial.intermediate_values == {1: 0.5}


def test_minimising_picks_the_smallest(tmp_path: Path, config: SearchConfig) -> None:
    config = changed(config, objectives=[["val_loss", "minimize"]])
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    for value in (0.5, 0.25, 0.75):
        study.finish(study.ask().number, "COMPLETE", {}, value)
    best = best_trial(study, config)
    assert best is not None
    assert (best.number, best.value) == (1, 0.25)


def test_a_pruned_trial_never_wins(tmp_path: Path, config: SearchConfig) -> None:
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    number = study.ask().number
    study.report(number, {1: 0.99})
    study.finish(number, "PRUNED", {})
    assert best_trial(study, config) is None


def test_a_taken_name_and_a_missing_study_are_named(
    storage_url: str, config: SearchConfig
) -> None:
    create_study(storage_url, config)
    with pytest.raises(StudyError, match=rf"study '{config.study.name}' exists already in"):
        create_study(storage_url, config)
    with pytest.raises(StudyError, match="no study 'other' in"):
        reopen(storage_url, changed(config, name="other"))


def test_a_database_that_goes_away_delays_the_search_and_loses_nothing(
    own_postgres: PostgresServer, config: SearchConfig
) -> None:
    study = create_study(own_postgres.url, config)
    notes: list[str] = []
    study.gate.on_outage = notes.append

    def restart() -> None:
        own_postgres.stop()
        time.sleep(3)
        own_postgres.start()

    for when in ("ask", "report", "tell"):
        outage = threading.Thread(target=restart)
        if when == "ask":
            outage.start()
            time.sleep(1)
        number = study.ask().number
        if when == "report":
            outage.start()
            time.sleep(1)
        study.report(number, {1: 0.5, 2: 0.75})
        if when == "tell":
            outage.start()
            time.sleep(1)
        study.finish(number, "COMPLETE", {"where": when}, 0.75)
        outage.join()
    trials = reopen(own_postgres.url, config).trials()
    assert [(t.number, t.state, t.curve, t.attributes["where"]) for t in trials] == [
        (i, "COMPLETE", {1: 0.5, 2: 0.75}, when)
        for i, when in enumerate(("ask", "report", "tell"))
    ]
    assert "does not answer" in notes[0]
    assert "answers again" in notes[1]
    assert "secret" not in " ".join(notes)


def test_a_dashboard_reads_while_the_search_writes(tmp_path: Path, config: SearchConfig) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = create_study(url, config)
    script = (
        "import sys, time, optuna\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "seen = 0\n"
        "for _ in range(12):\n"
        "    trials = optuna.load_study(storage=sys.argv[1], study_name=sys.argv[2]).trials\n"
        "    assert len(trials) >= seen\n"
        "    seen = len(trials)\n"
        "    time.sleep(0.1)\n"
        "print(seen)\n"
    )
    command = [sys.executable, "-c", script, url, config.study.name]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    num_trials = 0
    while reader.poll() is None:
        number = study.ask().number
        study.report(number, {1: 0.5})
        study.finish(number, "COMPLETE", {}, 0.5)
        num_trials += 1
    assert reader.stdout is not None
    assert 0 < int(reader.stdout.read()) <= num_trials
    with sqlite3.connect(tmp_path / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.fixture
def lost_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write reaches the storage, but the connection breaks before the answer.

    The outage is simulated, because a real one cannot be timed so.
    """
    monkeypatch.setattr("hpo.study.gate.SECONDS_BETWEEN_TRIES", 0.0)
    for kind in (DirectWriter, OptunaWriter):
        for name in ("create", "start", "report", "finish"):
            monkeypatch.setattr(kind, name, answered_the_second_time(getattr(kind, name)))


def answered_the_second_time(function: Any) -> Any:
    num_calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal num_calls
        result = function(*args, **options)
        num_calls += 1
        if num_calls % 2:
            raise sqlalchemy.exc.OperationalError("COMMIT", None, Exception("connection lost"))
        return result

    return call


@pytest.mark.usefixtures("lost_answers")
def test_what_was_written_though_the_answer_was_lost_is_not_written_twice(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    for number in range(3):
        assert study.ask().number == number
        study.report(number, {1: 0.5, 2: 0.75})
        study.finish(number, "COMPLETE", {"end_reason": "completed"}, 0.75)
    trials = reopen(storage_url, config).trials()
    assert [(t.number, t.state, t.value, t.curve, t.attributes) for t in trials] == [
        (i, "COMPLETE", 0.75, {1: 0.5, 2: 0.75}, {"end_reason": "completed"}) for i in range(3)
    ]


@pytest.mark.usefixtures("lost_answers")
def test_after_an_outage_a_study_that_another_search_has_taken_up_is_left_to_it(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    other = {"hostname": "elsewhere", "pid": 1, "started": 1, "beat": time.time()}
    with leased(study):
        study.optuna_study.set_user_attr("driver", other)
        with pytest.raises(StudyError, match="another search has taken up study"):
            study.ask()
    assert study.metadata.driver == other
