import dataclasses
from pathlib import Path
from typing import Any

import pytest
from studies import create_study
from watcher import Watcher

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialReport


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def checkpoints(tmp_path: Path) -> TrialCheckpoints:
    return TrialCheckpoints(tmp_path / "trials", 1, maximise=True)


def report(number: int, values: dict[int, float], end: str | None = None) -> TrialReport:
    epochs = tuple({"epoch": epoch, "val_top1": value} for epoch, value in values.items())
    return TrialReport(number, epochs, end, {"num_parameters": 7})


@pytest.fixture
def thaw_config(search_file: Path) -> SearchConfig:
    """freeze_thaw with rungs 2 and 4 of 8 epochs, 10 trials, 40 epochs and 8 for retraining."""
    overrides = [
        "scheduler={name: freeze_thaw, min_epochs: 2}", "study.num_trials=10",
        "train.max_epochs=8", "budget.total_epochs=48",
    ]  # fmt: skip
    return load_search_config(search_file, overrides)[0]


def value_of(params: Params, epoch: int) -> float:
    return 0.5 + 0.05 * epoch - float(params["model.drop_rate"] or 0) / 4


def train_one_slot(engine: Engine, max_reports: int = 1000) -> int:
    """Trains what the engine proposes, as a worker does; returns the number of epochs reported."""
    num_reports, trained = 0, dict[int, int]()
    while num_reports < max_reports:
        proposal = engine.next_trial()
        if proposal is None:
            break
        number, params = proposal.number, proposal.params
        epoch = trained.get(number, proposal.num_epochs_reported)
        past = {e: value_of(params, e) for e in range(1, epoch + 1)}
        goes_on = not past or engine.on_report(report(number, past))
        if not goes_on:  # a kill came between the report and the decision
            assert number not in trained
            engine.on_end(report(number, {}))
        while goes_on and num_reports < max_reports:
            epoch += 1
            num_reports += 1
            trained[number] = epoch
            news = report(number, {epoch: value_of(params, epoch)}, "completed" * (epoch == 8))
            goes_on = news.end_reason == "" and engine.on_report(
                dataclasses.replace(news, end_reason=None)
            )
            if not goes_on and num_reports < max_reports:
                engine.on_end(dataclasses.replace(news, end_reason=news.end_reason or None))
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
    engine = Engine(thaw_config, study, 1, watcher, checkpoints)
    assert 40 - 8 < train_one_slot(engine) <= 40
    assert engine.finished
    assert engine.num_missing == 0
    trials = study.trials()
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    assert watcher.named("trial_paused")
    assert [e for e in watcher.named("trial_started") if e[2]]  # a trial was resumed
    assert len(watcher.named("trial_ended")) == len(trials)


def test_the_study_tells_which_paused_trial_would_be_resumed_first(
    thaw_config: SearchConfig, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    study = SearchStudy.in_memory(thaw_config.study, thaw_config.space)
    engine = Engine(thaw_config, study, 1, watcher, checkpoints)
    lines = []
    note = watcher.trial_paused
    watcher.trial_paused = lambda number: (lines.append(study.metadata.line), note(number))
    train_one_slot(engine)
    resumed = [number for number, _, epochs in watcher.named("trial_started") if epochs]
    paused = {number for (number,) in watcher.named("trial_paused")}
    assert max(map(len, lines)) > 1
    assert set().union(*lines) <= paused
    assert resumed[0] in {line[0] for line in lines if line}


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
            train_one_slot(Engine(thaw_config, study, 1, Watcher(), places), most)
        histories.append(history(study))
    assert histories[1] == histories[0]


@pytest.fixture(params=["tpe", "cmaes", "nsga2"])
def promotion_config(thaw_config: SearchConfig, request: pytest.FixtureRequest) -> SearchConfig:
    """asha_promotion with rungs 2 and 4 of 8 epochs, 10 trials, no limit of epochs."""
    values = thaw_config.model_dump()
    values["scheduler"] = {"name": "asha_promotion", "min_epochs": 2, "reduction_factor": 2}
    values["budget"]["total_epochs"], values["study"]["sampler"] = None, request.param
    return SearchConfig.model_validate(values)


def test_a_search_with_promotion_pauses_resumes_and_ends(
    promotion_config: SearchConfig,
    tmp_path: Path,
    watcher: Watcher,
    checkpoints: TrialCheckpoints,
) -> None:
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", promotion_config)
    engine = Engine(promotion_config, study, 1, watcher, checkpoints)
    train_one_slot(engine)
    assert engine.finished
    assert engine.num_missing == 0
    trials = study.trials()
    assert len(trials) == 10
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    assert {trial.num_epochs for trial in trials} == {2, 4, 8}
    at_first = sorted((t for t in trials), key=lambda t: t.curve[2], reverse=True)
    assert at_first[0].num_epochs == 8
    assert at_first[-1].num_epochs == 2
    resumed = {event[0] for event in watcher.named("trial_started") if event[2]}
    assert all(trial.num_epochs > 2 for trial in trials if trial.number in resumed)


def test_a_small_disk_holds_few_trials_that_wait_for_promotion(
    promotion_config: SearchConfig, tmp_path: Path, watcher: Watcher
) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "last.safetensors").write_bytes(bytes(100))
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", promotion_config)
    places = TrialCheckpoints(tmp_path, 1, maximise=True, max_bytes=350)
    engine = Engine(promotion_config, study, 1, watcher, places)
    train_one_slot(engine)
    assert engine.finished
    assert {trial.state for trial in study.trials()} == {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("num_reports", [1, 9, 10, 12, 17, 25])
def test_a_search_with_promotion_that_was_killed_goes_on_as_it_would_have(
    promotion_config: SearchConfig, tmp_path: Path, num_reports: int
) -> None:
    histories = []
    for name, cut in (("whole", None), ("cut", num_reports)):
        url = f"sqlite:///{tmp_path / name}.db"
        study = create_study(url, promotion_config)
        for most in (cut, 1000) if cut else (1000,):
            study = SearchStudy.open(url, promotion_config.study, promotion_config.space)
            places = TrialCheckpoints(tmp_path / name, 1, maximise=True)
            engine = Engine(promotion_config, study, 1, Watcher(), places)
            train_one_slot(engine, most)
        histories.append(history(study))
    assert histories[1] == histories[0]


def test_paused_trials_make_room_for_others(
    thaw_config: SearchConfig, tmp_path: Path, watcher: Watcher
) -> None:
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", thaw_config)
    places = TrialCheckpoints(tmp_path, 1, maximise=True)
    train_one_slot(Engine(thaw_config, study, 1, watcher, places, max_paused=2))
    paused, most = set[int](), 0
    for name, *values in watcher.events:
        if name == "trial_paused":
            paused.add(values[0])
        elif name in {"trial_started", "trial_ended"}:
            paused.discard(values[0])
            most = max(most, len(paused))
    assert most == 2


def test_a_search_ends_when_every_configuration_has_been_tried(
    search_file: Path, tmp_path: Path, watcher: Watcher, checkpoints: TrialCheckpoints
) -> None:
    overrides = [
        "scheduler={name: freeze_thaw, min_epochs: 2}", "study.num_trials=10",
        "train.max_epochs=8", "train.model.drop_rate=0.1",
        "space={model.drop_rate: {type: categorical, choices: [0, 0.1, 0.2]}}",
    ]  # fmt: skip
    config = load_search_config(search_file, overrides)[0]
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    engine = Engine(config, study, 1, watcher, checkpoints)
    train_one_slot(engine)
    assert engine.finished
    assert engine.is_exhausted
    assert sorted(float(t.params["model.drop_rate"] or 0) for t in study.trials()) == [0, 0.1, 0.2]
    assert study.metadata.limits_reached == config.limits


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
    train_one_slot(Engine(config, study, 1, watcher, checkpoints))
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
    engine = Engine(thaw_config, study, 1, watcher, places)
    train_one_slot(engine)
    assert engine.finished
    assert {trial.state for trial in study.trials()} == {"COMPLETE", "PRUNED"}
    assert sum(trial.num_epochs for trial in study.trials()) > 40 - 8
