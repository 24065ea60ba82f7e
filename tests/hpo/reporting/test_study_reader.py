"""Tests of reading a study again and again."""

from reports import compare, make_study

from hpo.config.schema import RetrainConfig, SearchConfig
from hpo.reporting.study_reader import StudyReader
from hpo.run_folder import RunFolder
from hpo.study.lease import leased
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus

STATES = ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]


class Clock:
    """A clock that stands still until a test sets `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_tells_states_best_budget_and_health(config: SearchConfig, run: RunFolder) -> None:
    facts = StudyReader(make_study(config, run, STATES), config).read()
    assert facts.states == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 1}
    assert facts.best == (0, 0.5)
    assert [trial.number for trial in facts.trials] == [0, 1, 2, 3]
    assert {card.name for card in facts.health} >= {"failures", "length"}
    assert (facts.compared, facts.verdict, facts.is_driven) == (None, None, False)


def test_a_trial_that_has_ended_is_read_once(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, STATES)
    reader = StudyReader(study, config)
    before = reader.read().trials
    study.report(3, {3: 0.9})
    after = reader.read().trials
    assert [one is other for one, other in zip(before, after, strict=True)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert after[3].curve[3] == 0.9


def test_what_another_process_adds_is_seen(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, STATES)
    reader = StudyReader(
        SearchStudy.open(run.storage_url(config), config.study, config.space), config
    )
    assert len(reader.read().trials) == 4
    study.finish(3, "COMPLETE", {"best_value": 0.75}, 0.75)
    number = study.ask().number
    facts = reader.read()
    assert [trial.number for trial in facts.trials][-1] == number
    assert facts.best == (3, 0.75)


def test_health_is_checked_every_half_minute_at_most(config: SearchConfig, run: RunFolder) -> None:
    clock = Clock()
    study = make_study(config, run, ["COMPLETE", "RUNNING"])
    reader = StudyReader(study, config, clock)
    first = reader.read().health
    study.finish(1, "FAIL", {"error": {"type": "ValueError", "message": "broken"}})
    clock.now += 29
    assert reader.read().health is first
    clock.now += 2
    assert "1 of 2 trials have broken" in reader.read().health[0].text


def test_what_is_left_of_each_limit(config: SearchConfig, run: RunFolder) -> None:
    budget = {"total_epochs": 2500, "gpu_hours": 2.0, "wall_clock_hours": 0.5}
    config = SearchConfig.model_validate(config.model_dump() | {"budget": budget})
    study = make_study(config, run, ["PRUNED"])
    study.metadata.seconds_searched = 900.0
    number = study.ask().number
    study.report(number, dict.fromkeys(range(1, 5), 0.5))
    facts = {"num_epochs_trained": 4, "seconds": 360.0, "gpu_seconds": 360.0}
    study.finish(number, "COMPLETE", facts, 0.5)
    found = StudyReader(study, config).read()
    assert found.budget[0] == "2494 of 2500 epochs"
    assert found.budget[1].endswith(" of 2 GPU-hours")
    assert found.budget[2] == "0.25 of 0.5 hours"
    assert found.seconds_left is not None
    assert 0 < found.seconds_left <= 900


def test_a_driver_and_finalists_are_told(config: SearchConfig, run: RunFolder) -> None:
    config = config.model_copy(update={"retrain": RetrainConfig(seeds=2, max_share=None)})
    study = make_study(config, run, ["COMPLETE", "COMPLETE"])
    compare(config, study, {1: [0.9, 0.9], 0: [0.5, 0.5]})
    reader = StudyReader(study, config)
    with leased(study, lambda _text: None):
        facts = reader.read()
        assert facts.is_driven
        assert facts.compared == (4, 4)
        assert facts.verdict is not None
    assert not reader.read().is_driven


def test_reading_takes_a_hundredth_of_a_core(config: SearchConfig, run: RunFolder) -> None:
    states = ["COMPLETE"] * 20
    reader = StudyReader(make_study(config, run, states), config)
    facts = reader.read()
    assert reader.seconds_to_wait >= 1.0
    assert facts.states[TrialStatus.COMPLETE] == 20
