import math
from pathlib import Path

import pytest
from studies import create_study
from watcher import Watcher

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import default_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.decisions import Decisions
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialError, TrialReport


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=6"])[0]


@pytest.fixture
def study(config: SearchConfig, tmp_path: Path) -> SearchStudy:
    return create_study(f"sqlite:///{tmp_path / 'study.db'}", config)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def checkpoints(tmp_path: Path) -> TrialCheckpoints:
    return TrialCheckpoints(tmp_path / "trials", 1, maximise=True)


@pytest.fixture
def decisions(
    config: SearchConfig, study: SearchStudy, watcher: Watcher, checkpoints: TrialCheckpoints
) -> Decisions:
    return Decisions(config, study, 2, watcher, checkpoints)


def report(number: int, values: dict[int, float], end: str | None = None) -> TrialReport:
    epochs = tuple({"epoch": epoch, "val_top1": value} for epoch, value in values.items())
    return TrialReport(number, epochs, end, {"num_parameters": 7})


def start(decisions: Decisions) -> int:
    proposal = decisions.next_trial()
    assert proposal is not None
    return proposal.number


def test_no_more_trials_run_than_there_are_slots(decisions: Decisions) -> None:
    assert [start(decisions), start(decisions)] == [0, 1]
    assert decisions.next_trial() is None
    decisions.on_end(report(0, {1: 0.5}, "completed"))
    assert start(decisions) == 2


def test_it_is_finished_when_all_trials_have_started(decisions: Decisions) -> None:
    for _ in range(6):
        assert not decisions.finished
        decisions.on_end(report(start(decisions), {1: 0.5}, "completed"))
    assert decisions.finished
    assert decisions.next_trial() is None


def test_an_epoch_is_in_the_study_before_it_is_decided_on(
    decisions: Decisions, study: SearchStudy
) -> None:
    number = start(decisions)
    assert decisions.on_report(report(number, {1: 0.5}))
    assert study.trials()[0].curve == {1: 0.5}


@pytest.mark.parametrize(
    ("end", "state", "value", "reason"),
    [
        ("completed", "COMPLETE", 0.75, "completed"),
        ("early_stopped", "COMPLETE", 0.75, "early_stopped"),
        ("diverged", "PRUNED", None, "diverged"),
        (None, "PRUNED", None, "stopped at rung 3"),
        ("failed", "FAIL", None, "Unknown: no reason was given"),
    ],
)
def test_every_end_is_told_as_what_it_is(
    decisions: Decisions, study: SearchStudy, end: str | None, state: str, value: float | None,
    reason: str,
) -> None:  # fmt: skip
    number = start(decisions)
    decisions.on_report(report(number, {1: 0.5, 2: 0.75}))
    decisions.on_end(report(number, {3: 0.625}, end))
    (trial,) = study.trials()
    assert (trial.state, trial.attributes["end_reason"]) == (state, reason)
    assert trial.curve == {1: 0.5, 2: 0.75, 3: 0.625}
    assert trial.value == value
    assert trial.attributes["num_parameters"] == 7
    assert (trial.attributes["best_value"], trial.attributes["num_epochs"]) == (
        None if state == "FAIL" else 0.75, 3,
    )  # fmt: skip


def test_a_trials_value_is_that_of_the_weights_that_it_keeps(
    decisions: Decisions, study: SearchStudy
) -> None:
    number = start(decisions)
    for epoch, value, best_epoch in ((1, 0.75, 1), (2, 0.5, 2), (3, 0.625, 2)):  # by val_loss
        row = {"epoch": epoch, "val_top1": value}
        decisions.on_report(TrialReport(number, (row,), None, {"best_epoch": best_epoch}))
        assert study.trials()[0].best_value(max) == 0.75  # until it pauses or ends
    decisions.on_end(TrialReport(number, (), "completed", {"best_epoch": 2}))
    (trial,) = study.trials()
    assert (trial.value, trial.best_value(max), trial.attributes["best_value"]) == (0.5,) * 3


def test_a_trial_that_diverges_in_its_first_epoch_keeps_that_epoch(
    decisions: Decisions, study: SearchStudy
) -> None:
    decisions.on_end(report(start(decisions), {1: math.nan}, "diverged"))
    (trial,) = study.trials()
    assert (trial.state, trial.num_epochs) == ("PRUNED", 1)
    assert math.isnan(trial.curve[1])


def test_a_failure_keeps_type_message_and_traceback(
    decisions: Decisions, study: SearchStudy
) -> None:
    error = TrialError("ValueError", "no such thing", "Traceback ...")
    decisions.on_end(TrialReport(start(decisions), (), "failed", {}, error))
    (trial,) = study.trials()
    assert trial.attributes["error"] == {
        "type": "ValueError", "message": "no such thing", "traceback": "Traceback ...",
    }  # fmt: skip


def test_a_lost_workers_trial_goes_on_a_few_times_then_fails(
    decisions: Decisions, study: SearchStudy, watcher: Watcher
) -> None:
    lost = TrialError("WorkerLost", "killed")
    number = start(decisions)
    for epoch in (1, 2, 3):  # max_retries
        decisions.on_report(report(number, {epoch: 0.5}))
        decisions.on_lost(number, lost)
        assert study.trials()[0].state == "RUNNING"
        assert start(decisions) == number
    assert [event[2] for event in watcher.named("trial_started")] == [0, 1, 2, 3]
    decisions.on_lost(number, lost)
    assert study.trials()[0].state == "FAIL"
    assert study.trials()[0].attributes["num_parameters"] == 7
    assert start(decisions) == 1


def test_what_a_lost_worker_trained_is_of_the_budget(
    decisions: Decisions, study: SearchStudy
) -> None:
    lost = TrialError("WorkerLost", "killed")
    number = start(decisions)
    decisions.on_report(report(number, {1: 0.5, 2: 0.6}))
    for _ in range(4):  # max_retries, and once more
        decisions.on_lost(number, lost)
        start(decisions)
    assert study.trials()[0].attributes["num_epochs_trained"] == 6


def test_a_lost_workers_trial_waits_for_any_free_slot(decisions: Decisions) -> None:
    first, second = start(decisions), start(decisions)
    decisions.on_lost(first, TrialError("WorkerLost", "killed"))
    decisions.on_end(report(second, {1: 0.5}, "completed"))
    assert start(decisions) == first


def test_a_retried_trial_that_reports_its_past_again_changes_nothing(
    decisions: Decisions, study: SearchStudy, watcher: Watcher
) -> None:
    number = start(decisions)
    decisions.on_report(report(number, {1: 0.5, 2: 0.6}))
    decisions.on_report(report(number, {1: 0.5, 2: 0.6, 3: 0.7}))
    assert study.trials()[0].curve == {1: 0.5, 2: 0.6, 3: 0.7}
    assert [event[1] for event in watcher.named("epoch")] == [1, 2, 3]


def test_a_weak_trial_is_stopped_at_a_rung(decisions: Decisions, study: SearchStudy) -> None:
    decisions.on_end(report(start(decisions), {1: 0.5}, "completed"))
    strong, weak = start(decisions), start(decisions)
    assert decisions.on_report(report(strong, {1: 0.8}))
    assert not decisions.on_report(report(weak, {1: 0.1}))
    decisions.on_end(report(weak, {}))
    assert study.trials()[weak].attributes["end_reason"] == "stopped at rung 1"


def test_a_new_search_over_the_study_continues_it(
    config: SearchConfig,
    study: SearchStudy,
    decisions: Decisions,
    tmp_path: Path,
    checkpoints: TrialCheckpoints,
) -> None:
    decisions.on_end(report(start(decisions), {1: 0.5}, "completed"))
    running = start(decisions)
    decisions.on_report(report(running, {1: 0.6}))
    url = f"sqlite:///{tmp_path / 'study.db'}"
    watcher = Watcher()
    again = Decisions(
        config, SearchStudy.open(url, config.study, config.space), 2, watcher, checkpoints
    )
    assert [start(again), start(again)] == [running, 2]
    assert [event[2] for event in watcher.named("trial_started")] == [1, 0]
    assert again.on_report(report(2, {1: 0.55}))
    assert again.on_report(report(running, {1: 0.6, 2: 0.7}))  # judged at rung 1 now
    again.on_end(report(2, {}))
    assert not again.on_report(report(start(again), {1: 0.2}))
    again.on_end(report(running, {3: 0.8}, "completed"))
    assert study.trials()[running].curve == {1: 0.6, 2: 0.7, 3: 0.8}


@pytest.mark.parametrize("ends_well_first", [False, True])
def test_the_search_is_broken_when_the_first_trials_all_fail_alike(
    decisions: Decisions, ends_well_first: bool
) -> None:
    if ends_well_first:
        decisions.on_end(report(start(decisions), {1: 0.5}, "completed"))
    for number in range(5):
        assert decisions.broken is None
        error = TrialError("ValueError", f"always, in process {number}")
        decisions.on_end(TrialReport(start(decisions), (), "failed", {}, error))
    assert decisions.broken == (None if ends_well_first else "ValueError: always, in process 0")


def test_different_failures_do_not_break_the_search(decisions: Decisions) -> None:
    for i in range(5):
        error = TrialError("ValueError", "abcde"[i])
        decisions.on_end(TrialReport(start(decisions), (), "failed", {}, error))
    assert decisions.broken is None


def test_a_full_disk_pauses_the_search_and_its_trial_goes_on_later(
    decisions: Decisions, study: SearchStudy
) -> None:
    number = start(decisions)
    full = TrialError("DiskFullError", "no space left on the disk of runs")
    decisions.on_end(TrialReport(number, (), "paused", {}, full))
    assert decisions.paused == "no space left on the disk of runs"
    assert decisions.next_trial() is None
    assert study.trials()[0].state == "RUNNING"


def test_a_rung_that_a_crash_left_undecided_is_decided_as_it_would_have_been(
    config: SearchConfig, tmp_path: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = create_study(url, config)
    first = Decisions(config, study, 1, watcher, checkpoints)
    for value in (0.9, 0.8):
        number = start(first)
        first.on_report(report(number, {1: value}))
        first.on_end(report(number, {2: value}, "completed"))
    number = start(first)
    study.report(number, {1: 0.1})  # and the driver dies before it decides
    again = Decisions(
        config, SearchStudy.open(url, config.study, config.space), 1, watcher, checkpoints
    )
    assert start(again) == number
    assert not again.on_report(report(number, {1: 0.1}))


def test_what_is_ruled_out_takes_no_slot_and_is_heard_of(
    search_file: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    overrides = [
        "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}",
        "study.constraints=[latency_ms <= 5]", "study.enqueue=[{model.name: sg_former_nano}]",
        "study.num_trials=6",
    ]  # fmt: skip
    config = load_search_config(search_file, overrides)[0]
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.architectures = {
        f"sg_former_{name} at 32 pixels": {"latency_ms": latency}
        for name, latency in (("pico", 2.0), ("nano", 7.132))
    }
    study.enqueue_first_trials(default_params(config.train, config.space))
    decisions = Decisions(config, study, 2, watcher, checkpoints)
    started = [start(decisions), start(decisions)]
    assert started[0] == 0
    assert started[1] > 1
    assert watcher.named("trial_ended")[0] == (
        1, "INFEASIBLE", "infeasible: latency_ms 7.132, not <= 5", None,
    )  # fmt: skip
    assert study.trials()[1].attributes["latency_ms"] == 7.132
    decisions.on_end(report(0, {1: 0.5}, "completed"))
    assert study.trials()[0].constraints == {"latency_ms <= 5": pytest.approx(-0.6)}


def test_at_a_rung_a_small_model_is_kept_for_its_size(
    search_file: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    nano, pico = ({"model.name": f"sg_former_{name}"} for name in ("nano", "pico"))
    overrides = [
        "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]", "study.num_trials=9",
        "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}",
        "train.model.name=sg_former_nano",
    ]  # fmt: skip
    values = load_search_config(search_file, overrides)[0].model_dump()
    rates = [{"optimizer.learning_rate": rate / 1000} for rate in (1, 3, 4, 5)]
    enqueued = [other | rate for other, rate in zip((nano, nano, pico, pico), rates, strict=True)]
    values["study"]["enqueue"] = enqueued
    config = SearchConfig.model_validate(values)
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.architectures = {
        "sg_former_pico at 32 pixels": {"latency_ms": 2.0},
        "sg_former_nano at 32 pixels": {"latency_ms": 7.0},
    }
    study.enqueue_first_trials(default_params(config.train, config.space))
    decisions = Decisions(config, study, 9, watcher, checkpoints)
    goes_on = [
        decisions.on_report(report(start(decisions), {1: value, 2: value}))
        for value in (0.5, 0.6, 0.7, 0.1)
    ]
    assert goes_on[2:] == [True, True]  # of models of its size the last one is the best
    again = Decisions(
        config,
        SearchStudy(study.optuna_study, study.storage, config.study, config.space),
        9,
        watcher,
        checkpoints,
    )
    for _ in range(4):
        assert again.on_report(report(start(again), {1: 0.0, 2: 0.0}))
    assert again.on_report(report(start(again), {1: 0.2}))
