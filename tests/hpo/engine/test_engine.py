import math
import subprocess
import sys
from pathlib import Path

import pytest
from studies import create_study
from watcher import Watcher

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import default_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.engine.observer import Place
from hpo.schedulers.base import Decision
from hpo.schedulers.stopping import StoppingScheduler
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
def engine(
    config: SearchConfig, study: SearchStudy, watcher: Watcher, checkpoints: TrialCheckpoints
) -> Engine:
    return Engine(config, study, 2, watcher, checkpoints)


def report(number: int, values: dict[int, float], end: str | None = None) -> TrialReport:
    epochs = tuple({"epoch": epoch, "val_top1": value} for epoch, value in values.items())
    return TrialReport(number, epochs, end, {"num_parameters": 7})


def start(engine: Engine) -> int:
    proposal = engine.next_trial()
    assert proposal is not None
    return proposal.number


def test_no_more_trials_run_than_there_are_slots(engine: Engine) -> None:
    assert [start(engine), start(engine)] == [0, 1]
    assert engine.next_trial() is None
    engine.on_end(report(0, {1: 0.5}, "completed"))
    assert start(engine) == 2


def test_the_observer_hears_of_slots_and_of_where_a_trial_trains(
    engine: Engine, watcher: Watcher
) -> None:
    for num in (2, 3, 3):
        engine.have_slots(num)
    assert watcher.named("slots") == [(2,), (3,)]
    row = {"epoch": 1, "val_top1": 0.5, "gpu_utilization": 0.75}
    facts = {"hostname": "alpha", "gpu_number": "1"}
    engine.on_report(TrialReport(start(engine), (row,), None, facts))
    assert watcher.named("trains_at") == [(0, Place("alpha", "1", 0.75))]


def test_it_is_finished_when_all_trials_have_started(engine: Engine) -> None:
    for _ in range(6):
        assert not engine.finished
        engine.on_end(report(start(engine), {1: 0.5}, "completed"))
    assert engine.finished
    assert engine.next_trial() is None


def test_an_epoch_is_in_the_study_before_it_is_decided_on(
    engine: Engine, study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = list[dict[int, float]]()
    decide = StoppingScheduler.on_epoch

    def watched(scheduler: StoppingScheduler, number: int) -> Decision:
        known.append(dict(study.trials()[number].curve))
        return decide(scheduler, number)

    monkeypatch.setattr(StoppingScheduler, "on_epoch", watched)
    number = start(engine)
    for epoch in (1, 2):
        assert engine.on_report(report(number, {epoch: 0.5}))
    assert known == [{1: 0.5}, {1: 0.5, 2: 0.5}]


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
    engine: Engine, study: SearchStudy, end: str | None, state: str, value: float | None,
    reason: str,
) -> None:  # fmt: skip
    number = start(engine)
    engine.on_report(report(number, {1: 0.5, 2: 0.75}))
    engine.on_end(report(number, {3: 0.625}, end))
    (trial,) = study.trials()
    assert (trial.state, trial.attributes["end_reason"]) == (state, reason)
    assert trial.curve == {1: 0.5, 2: 0.75, 3: 0.625}
    assert trial.value == value
    assert trial.attributes["num_parameters"] == 7
    assert (trial.attributes["best_value"], trial.attributes["num_epochs"]) == (
        None if state == "FAIL" else 0.75, 3,
    )  # fmt: skip


def test_a_trials_value_is_that_of_the_weights_that_it_keeps(
    engine: Engine, study: SearchStudy
) -> None:
    number = start(engine)
    for epoch, value, best_epoch in ((1, 0.75, 1), (2, 0.5, 2), (3, 0.625, 2)):  # by val_loss
        row = {"epoch": epoch, "val_top1": value}
        engine.on_report(TrialReport(number, (row,), None, {"best_epoch": best_epoch}))
        assert study.trials()[0].best_value(max) == 0.75  # until the trial pauses or ends
    engine.on_end(TrialReport(number, (), "completed", {"best_epoch": 2}))
    (trial,) = study.trials()
    assert (trial.value, trial.best_value(max), trial.attributes["best_value"]) == (0.5,) * 3


def test_a_trial_that_diverges_in_its_first_epoch_keeps_that_epoch(
    engine: Engine, study: SearchStudy
) -> None:
    engine.on_end(report(start(engine), {1: math.nan}, "diverged"))
    (trial,) = study.trials()
    assert (trial.state, trial.num_epochs) == ("PRUNED", 1)
    assert math.isnan(trial.curve[1])


def test_a_failure_keeps_type_message_and_traceback(engine: Engine, study: SearchStudy) -> None:
    error = TrialError("ValueError", "no such thing", "Traceback ...")
    engine.on_end(TrialReport(start(engine), (), "failed", {}, error))
    (trial,) = study.trials()
    assert trial.attributes["error"] == {
        "type": "ValueError", "message": "no such thing", "traceback": "Traceback ...",
    }  # fmt: skip


def test_a_lost_workers_trial_goes_on_a_few_times_then_fails(
    engine: Engine, study: SearchStudy, watcher: Watcher
) -> None:
    lost = TrialError("WorkerLost", "killed")
    number = start(engine)
    engine.on_report(report(number, {1: 0.5}))
    for _ in range(3):  # max_retries
        engine.on_lost(number, lost)
        assert study.trials()[0].state == "RUNNING"
        assert start(engine) == number
    assert [event[2] for event in watcher.named("trial_started")] == [0, 1, 1, 1]
    engine.on_lost(number, lost)
    assert study.trials()[0].state == "FAIL"
    assert study.trials()[0].attributes["num_parameters"] == 7
    assert start(engine) == 1


def test_a_trial_that_gets_on_between_losses_of_its_worker_never_fails_of_them(
    engine: Engine, study: SearchStudy
) -> None:
    number = start(engine)
    past = dict[int, float]()
    for epoch in range(1, 9):
        past[epoch] = 0.5
        engine.on_report(report(number, past))
        engine.on_lost(number, TrialError("WorkerLost", "preempted"))
        assert start(engine) == number
    assert study.trials()[0].state == "RUNNING"


def test_a_trial_that_is_left_in_order_goes_on_at_no_cost(
    engine: Engine, study: SearchStudy
) -> None:
    number = start(engine)
    engine.on_report(report(number, {1: 0.5}))
    for _ in range(5):  # more than max_retries, as on preemptible machines
        engine.on_end(TrialReport(number, (), "left"))
        assert start(engine) == number
    assert study.trials()[0].state == "RUNNING"
    engine.on_end(report(number, {1: 0.5, 2: 0.6}, "completed"))
    assert study.trials()[0].curve == {1: 0.5, 2: 0.6}


def test_what_a_lost_worker_trained_is_of_the_budget(engine: Engine, study: SearchStudy) -> None:
    lost = TrialError("WorkerLost", "killed")
    number = start(engine)
    engine.on_report(report(number, {1: 0.5, 2: 0.6}))
    for _ in range(4):  # max_retries, and once more
        engine.on_lost(number, lost)
        start(engine)
    assert study.trials()[0].attributes["num_epochs_trained"] == 6


def test_a_lost_workers_trial_waits_for_any_free_slot(engine: Engine) -> None:
    first, second = start(engine), start(engine)
    engine.on_lost(first, TrialError("WorkerLost", "killed"))
    engine.on_end(report(second, {1: 0.5}, "completed"))
    assert start(engine) == first


def test_a_retried_trial_that_reports_its_past_again_changes_nothing(
    engine: Engine, study: SearchStudy, watcher: Watcher
) -> None:
    number = start(engine)
    engine.on_report(report(number, {1: 0.5, 2: 0.6}))
    engine.on_report(report(number, {1: 0.5, 2: 0.6, 3: 0.7}))
    assert study.trials()[0].curve == {1: 0.5, 2: 0.6, 3: 0.7}
    assert [event[1] for event in watcher.named("epoch")] == [1, 2, 3]
    assert [row["epoch"] for _, row in watcher.named("epoch_metrics")] == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_enqueued_trial_that_the_space_does_not_have_fails_untrained_and_is_counted(
    config: SearchConfig, engine: Engine, study: SearchStudy, watcher: Watcher,
    checkpoints: TrialCheckpoints, is_killed: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert start(engine) == 0
    study.optuna_study.enqueue_trial({"model.drop_rate": 7.5})
    if is_killed:
        with monkeypatch.context() as patched:
            patched.delattr(SearchStudy, "finish")  # the driver dies in this write
            with pytest.raises(AttributeError):
                engine.next_trial()
        reopened = SearchStudy(study.optuna_study, study.storage, config.study, config.space)
        engine = Engine(config, reopened, 2, watcher, checkpoints)
        assert start(engine) == 0
    num_missing = engine.num_missing
    assert start(engine) == 2
    refused = study.trials()[1]
    assert (refused.state, refused.curve) == ("FAIL", {})
    assert "model.drop_rate=7.5: expected 0..0.5" in refused.attributes["error"]["message"]
    assert refused.attributes["end_reason"].startswith("enqueued model.drop_rate=7.5")
    assert engine.num_missing == num_missing - 1 == 5


def test_a_weak_trial_is_stopped_at_a_rung(engine: Engine, study: SearchStudy) -> None:
    engine.on_end(report(start(engine), {1: 0.5}, "completed"))
    strong, weak = start(engine), start(engine)
    assert engine.on_report(report(strong, {1: 0.8}))
    assert not engine.on_report(report(weak, {1: 0.1}))
    engine.on_end(report(weak, {}))
    attributes = study.trials()[weak].attributes
    assert attributes["end_reason"] == "stopped at rung 1"
    assert attributes["standing"] == [3, 3]


@pytest.mark.parametrize(("value", "where"), [(0.1, "rung 1"), (0.9, "the budget's end")])
def test_what_stopped_a_trial_is_told_where_a_rung_and_the_budgets_end_meet(
    search_file: Path, watcher: Watcher, checkpoints: TrialCheckpoints, value: float, where: str
) -> None:
    config = load_search_config(search_file, ["budget.total_epochs=9"])[0]  # 8 are reserved
    study = SearchStudy.in_memory(config.study, config.space)
    engine = Engine(config, study, 2, watcher, checkpoints)
    default, other = start(engine), start(engine)
    assert engine.on_report(report(default, {1: 0.5}))
    assert not engine.on_report(report(other, {1: value}))
    engine.on_end(report(other, {}))
    assert study.trials()[other].attributes["end_reason"] == f"stopped at {where}"


def test_a_trial_that_waited_for_room_on_the_disk_starts_only_if_the_budget_still_has_room(
    search_file: Path, tmp_path: Path
) -> None:
    overrides = ["study.num_trials=9", "train.max_epochs=8", "budget.total_epochs=31"]
    config = load_search_config(
        search_file, ["scheduler={name: asha, min_epochs: 4}", *overrides]
    )[0]
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    places = TrialCheckpoints(tmp_path, 1, maximise=True, max_bytes=350)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "last.safetensors").write_bytes(bytes(100))
    engine = Engine(config, study, 3, Watcher(), places)
    assert [start(engine), start(engine), start(engine)] == [0, 1, 2]
    for epoch in range(1, 8):
        assert engine.on_report(report(0, {epoch: 0.5}))
    for epoch in range(1, 5):
        assert engine.on_report(report(1, {epoch: 0.5}))
    engine.on_end(report(0, {8: 0.5}, "completed"))
    assert engine.next_trial() is None  # 4 epochs are admitted, but there is no room on the disk
    for epoch in range(1, 7):
        assert engine.on_report(report(2, {epoch: 0.6}))
    engine.on_end(report(1, {5: 0.5}, "failed"))
    assert engine.next_trial() is None  # there is room on the disk, and fewer epochs are left


def test_limits_that_the_clock_reaches_after_the_last_end_are_noted(
    search_file: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    config = load_search_config(search_file, ["budget.wall_clock_hours=1"])[0]
    study = SearchStudy.in_memory(config.study, config.space)
    now = 0.0
    engine = Engine(config, study, 1, watcher, checkpoints, lambda: now)
    engine.on_end(report(start(engine), {1: 0.5}, "completed"))
    assert study.metadata.limits_reached is None
    now = 3600.0
    assert engine.next_trial() is None
    assert engine.finished
    assert study.metadata.limits_reached == config.limits


def test_a_new_search_over_the_study_continues_it(
    config: SearchConfig,
    study: SearchStudy,
    engine: Engine,
    tmp_path: Path,
    checkpoints: TrialCheckpoints,
) -> None:
    engine.on_end(report(start(engine), {1: 0.5}, "completed"))
    running = start(engine)
    engine.on_report(report(running, {1: 0.6}))
    url = f"sqlite:///{tmp_path / 'study.db'}"
    watcher = Watcher()
    again = Engine(
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
    engine: Engine, ends_well_first: bool
) -> None:
    if ends_well_first:
        engine.on_end(report(start(engine), {1: 0.5}, "completed"))
    for number in range(5):
        assert engine.broken is None
        error = TrialError("ValueError", f"always, in process {number}")
        engine.on_end(TrialReport(start(engine), (), "failed", {}, error))
    assert engine.broken == (None if ends_well_first else "ValueError: always, in process 0")


def test_different_failures_do_not_break_the_search(engine: Engine) -> None:
    for i in range(5):
        error = TrialError("ValueError", "abcde"[i])
        engine.on_end(TrialReport(start(engine), (), "failed", {}, error))
    assert engine.broken is None


def test_a_full_disk_pauses_the_search_and_its_trial_goes_on_later(
    engine: Engine, study: SearchStudy
) -> None:
    number = start(engine)
    full = TrialError("DiskFullError", "no space left on the disk of runs")
    engine.on_end(TrialReport(number, (), "paused", {}, full))
    assert engine.paused == full
    assert engine.next_trial() is None
    assert study.trials()[0].state == "RUNNING"


def test_a_rung_that_a_crash_left_undecided_is_decided_as_it_would_have_been(
    config: SearchConfig, tmp_path: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = create_study(url, config)
    first = Engine(config, study, 1, watcher, checkpoints)
    for value in (0.9, 0.8):
        number = start(first)
        first.on_report(report(number, {1: value}))
        first.on_end(report(number, {2: value}, "completed"))
    number = start(first)
    study.report(number, {1: 0.1})  # the driver dies before it decides
    again = Engine(
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
    engine = Engine(config, study, 2, watcher, checkpoints)
    started = [start(engine), start(engine)]
    assert started[0] == 0
    assert started[1] > 1
    assert watcher.named("trial_ended")[0] == (
        1, "INFEASIBLE", "infeasible: latency_ms 7.132, not <= 5", None,
    )  # fmt: skip
    assert study.trials()[1].attributes["latency_ms"] == 7.132
    engine.on_end(report(0, {1: 0.5}, "completed"))
    assert study.trials()[0].constraints == {"latency_ms <= 5": pytest.approx(-0.6)}


def test_what_a_model_loses_in_8_bit_integers_is_judged_at_its_trials_end(
    search_file: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    overrides = ["study.constraints=[int8_top1_drop <= 0.01]", "export.int8=true"]
    config = load_search_config(search_file, overrides)[0]
    study = SearchStudy.in_memory(config.study, config.space)
    engine = Engine(config, study, 3, watcher, checkpoints)
    for drop in (0.015, 0.0):
        facts = {"int8_top1_drop": drop}
        epochs = ({"epoch": 1, "val_top1": 0.5},)
        engine.on_end(TrialReport(start(engine), epochs, "completed", facts))
    engine.on_end(report(start(engine), {1: 0.1}))
    lossy, kept, stopped = study.trials()
    name = "int8_top1_drop <= 0.01"
    assert lossy.constraints == {name: pytest.approx(0.5)}
    assert not lossy.is_feasible
    assert kept.constraints == {name: -1.0}
    assert kept.attributes["int8_top1_drop"] == 0.0
    assert stopped.is_feasible  # as far as is known
    assert not stopped.constraints


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
    engine = Engine(config, study, 9, watcher, checkpoints)
    goes_on = [
        engine.on_report(report(start(engine), {1: value, 2: value}))
        for value in (0.5, 0.6, 0.7, 0.1)
    ]
    assert goes_on[2:] == [True, True]  # the last trial is the best of its model size
    again = Engine(
        config,
        SearchStudy(study.optuna_study, study.storage, config.study, config.space),
        9,
        watcher,
        checkpoints,
    )
    for _ in range(4):
        assert again.on_report(report(start(again), {1: 0.0, 2: 0.0}))
    assert again.on_report(report(start(again), {1: 0.2}))


def test_the_driver_of_a_search_without_a_surrogate_needs_neither_scipy_nor_torch() -> None:
    program = (
        "import sys, hpo.engine.engine, hpo.execution.tuning\n"
        "print([name for name in ('scipy', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
