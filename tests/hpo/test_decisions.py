import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from studies import create_study

from hpo.checkpoints import TrialCheckpoints
from hpo.config import SearchConfig, load_search_config
from hpo.decisions import Decisions
from hpo.search_space import Params
from hpo.study import SearchStudy
from hpo.trial_report import TrialError, TrialReport


class Watcher:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.events.append((name, *args))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]


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
    decisions.on_end(report(start(decisions), {1: 0.9}, "completed"))
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


@pytest.fixture
def thaw_config(search_file: Path) -> SearchConfig:
    """Levels 2 and 4 of 8 epochs, 10 trials, 40 epochs in all."""
    overrides = [
        "scheduler={name: freeze_thaw, min_epochs: 2}", "study.num_trials=10",
        "train.max_epochs=8", "budget.total_epochs=40",
    ]  # fmt: skip
    return load_search_config(search_file, overrides)[0]


def value_of(params: Params, epoch: int) -> float:
    return 0.5 + 0.05 * epoch - float(params["model.drop_rate"] or 0) / 4


def train_one_slot(decisions: Decisions, max_reports: int = 1000) -> int:
    """As a worker does, from what it has trained before; how many epochs were told."""
    num_reports, trained = 0, dict[int, int]()
    while num_reports < max_reports:
        proposal = decisions.next_trial()
        if proposal is None:
            break
        number, params = proposal.number, proposal.params
        epoch = trained.get(number, proposal.num_epochs_reported)
        past = {e: value_of(params, e) for e in range(1, epoch + 1)}
        goes_on = not past or decisions.on_report(report(number, past))
        if not goes_on:  # a kill had left open whether it goes on
            assert number not in trained
            decisions.on_end(report(number, {}))
        while goes_on and num_reports < max_reports:
            epoch += 1
            num_reports += 1
            trained[number] = epoch
            news = report(number, {epoch: value_of(params, epoch)}, "completed" * (epoch == 8))
            goes_on = news.end_reason == "" and decisions.on_report(
                dataclasses.replace(news, end_reason=None)
            )
            if not goes_on and num_reports < max_reports:
                decisions.on_end(dataclasses.replace(news, end_reason=news.end_reason or None))
    return num_reports


def history(study: SearchStudy) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.params, dict(t.curve), t.attributes["end_reason"])
        for t in study.trials()
    ]


def test_a_freeze_thaw_search_pauses_resumes_and_ends(
    thaw_config: SearchConfig, tmp_path: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", thaw_config)
    decisions = Decisions(thaw_config, study, 1, watcher, checkpoints)
    assert 40 - 8 < train_one_slot(decisions) <= 40
    assert decisions.finished
    assert decisions.num_missing == 0
    trials = study.trials()
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    assert watcher.named("trial_paused")
    assert [e for e in watcher.named("trial_started") if e[2]]  # one was resumed
    assert len(watcher.named("trial_ended")) == len(trials)


@pytest.mark.parametrize("num_reports", [1, 8, 9, 10, 11, 12, 17, 21, 25, 30, 35])
def test_a_freeze_thaw_search_that_was_killed_goes_on_as_it_would_have(
    thaw_config: SearchConfig, tmp_path: Path, num_reports: int
) -> None:
    histories = []
    for name, cut in (("whole", None), ("cut", num_reports)):
        url = f"sqlite:///{tmp_path / name}.db"
        study = create_study(url, thaw_config)
        for most in (cut, 1000) if cut else (1000,):
            study = SearchStudy.open(url, thaw_config.study, thaw_config.space)
            places = TrialCheckpoints(tmp_path / name, 1, maximise=True)
            train_one_slot(Decisions(thaw_config, study, 1, Watcher(), places), most)
        histories.append(history(study))
    assert histories[1] == histories[0]


def test_paused_trials_make_room_for_others(
    thaw_config: SearchConfig, tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.decisions.MAX_PAUSED", 2)
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", thaw_config)
    places = TrialCheckpoints(tmp_path, 1, maximise=True)
    train_one_slot(Decisions(thaw_config, study, 1, watcher, places))
    paused, most = set[int](), 0
    for name, *values in watcher.events:
        if name == "trial_paused":
            paused.add(values[0])
        elif name in {"trial_started", "trial_ended"}:
            paused.discard(values[0])
            most = max(most, len(paused))
    assert most == 2


def test_enqueued_trials_come_before_the_models_own(
    thaw_config: SearchConfig, tmp_path: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    guesses = tuple(
        {"optimizer.learning_rate": rate, "model.drop_rate": 0.5} for rate in (1e-3, 5e-3)
    )
    config = thaw_config.model_copy(
        update={"study": thaw_config.study.model_copy(update={"enqueue": guesses})}
    )
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    train_one_slot(Decisions(config, study, 1, watcher, checkpoints))
    assert [trial.params for trial in study.trials()[1:3]] == list(guesses)


@pytest.mark.parametrize("max_bytes", [250, 350, 450, 650])
def test_a_small_disk_holds_few_paused_trials_and_ends_no_search(
    thaw_config: SearchConfig, tmp_path: Path, watcher: Watcher, max_bytes: int
) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "last.safetensors").write_bytes(bytes(100))
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", thaw_config)
    places = TrialCheckpoints(tmp_path, 1, maximise=True, max_bytes=max_bytes)
    decisions = Decisions(thaw_config, study, 1, watcher, places)
    train_one_slot(decisions)
    assert decisions.finished
    assert {trial.state for trial in study.trials()} == {"COMPLETE", "PRUNED"}
    assert sum(trial.num_epochs for trial in study.trials()) > 40 - 8
