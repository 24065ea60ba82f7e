"""Tests of a study's facts besides its trials, in SQLite, a journal file and PostgreSQL."""

import uuid
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.study.lease import leased
from hpo.study.metadata import StudyMetadata
from hpo.study.study import SearchStudy


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, name=f"study-{uuid.uuid4().hex[:8]}")[0]


def reopen(url: str, config: SearchConfig) -> StudyMetadata:
    return SearchStudy.open(url, config.study, config.space).metadata


FACTS: dict[str, Any] = {
    "search_config": {"study": {"name": "a"}},
    "images": {"classes": ["a"], "train": 3},
    "architectures": {"sg_former_b0 at 224 pixels": {"latency_ms": 7.5}},
    "model_state": [0.5, -1.0],
    "first_levels": [{"epoch": 4, "agreement": {"4": 0.9}}],
    "last_one": 3,
    "seconds_searched": 12.5,
    "limits_reached": {"total_epochs": 40},
    "warm_start": [{"optimizer.learning_rate": 0.001}],
    "finalists": {"numbers": [3, 0]},
    "retrainings": [{"trial": 0}],
    "delivered_trial": 0,
    "carried_from": {"study": "a", "num_carried_over": 3},
    "carried_to": "b",
}
DEFAULTS: dict[str, Any] = {
    "architectures": {}, "first_levels": [], "seconds_searched": 0.0, "retrainings": [],
}  # fmt: skip


def test_each_fact_comes_back_and_is_an_attribute_of_its_name(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    for name, value in FACTS.items():
        assert getattr(study.metadata, name) == DEFAULTS.get(name)
        setattr(study.metadata, name, value)
    again = reopen(storage_url, config)
    assert {name: getattr(again, name) for name in FACTS} == FACTS
    assert study.optuna_study.user_attrs == FACTS


def test_what_is_read_can_be_changed_without_changing_the_study(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    study.metadata.images = {"classes": ["a"]}
    with leased(study):
        (study.metadata.images or {})["classes"].append("b")
        assert study.metadata.images == {"classes": ["a"]}


def test_trainings_on_fresh_seeds_and_retrainings_add_up(
    storage_url: str, config: SearchConfig
) -> None:
    study = create_study(storage_url, config)
    assert (study.metadata.finalists, study.metadata.fresh_trainings) == (None, {})
    with leased(study):
        study.metadata.add_fresh_training("3-abc", {"value": 0.5})
        study.metadata.add_fresh_training("0-def", {"value": None})
        study.metadata.add_retraining(3, num_epochs=4, seconds=10.0, num_gpus=2.0)
        study.metadata.add_retraining(0, num_epochs=2, seconds=5.0, num_gpus=0.5)
        kept = study.metadata.trainings_after
    again = reopen(storage_url, config)
    assert again.fresh_trainings == {"3-abc": {"value": 0.5}, "0-def": {"value": None}}
    assert again.retrainings == [
        {"trial": 3, "num_epochs": 4, "seconds": 10.0, "gpu_seconds": 20.0},
        {"trial": 0, "num_epochs": 2, "seconds": 5.0, "gpu_seconds": 2.5},
    ]
    assert again.trainings_after == kept
    assert len(kept) == 4


def test_another_process_sees_what_the_driver_writes(
    storage_url: str, config: SearchConfig
) -> None:
    study, reader = create_study(storage_url, config), reopen(storage_url, config)
    assert reader.delivered_trial is None
    with leased(study):
        study.metadata.delivered_trial = 0
        assert reader.delivered_trial == 0
        study.metadata.delivered_trial = 1
        assert (reader.delivered_trial, study.metadata.delivered_trial) == (1, 1)
        assert reader.driver is not None
    reader_of_driver = reopen(storage_url, config)
    assert reader_of_driver.driver is None


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list for method names of optuna.Study; each named method loses its answer once."""
    monkeypatch.setattr("hpo.study.gate.SECONDS_BETWEEN_TRIES", 0.0)
    broken: list[str] = []

    def breaks_once(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            if name in broken:
                broken.remove(name)
                raise sqlalchemy.exc.OperationalError("COMMIT", None, Exception("lost"))
            return result

        return call

    for name in ("set_user_attr", "get_trials", "add_trial", "enqueue_trial"):
        monkeypatch.setattr(optuna.Study, name, breaks_once(name, getattr(optuna.Study, name)))
    return broken


@pytest.mark.parametrize("name", FACTS)
def test_each_fact_waits_for_the_database(
    tmp_path: Path, config: SearchConfig, breaking: list[str], name: str
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = create_study(url, config)
    told: list[str] = []
    study.gate.on_outage = told.append
    breaking.append("set_user_attr")
    setattr(study.metadata, name, FACTS[name])
    assert getattr(reopen(url, config), name) == FACTS[name]
    assert [line.partition(":")[0] for line in told] == [
        "the study's database does not answer, waiting",
        "the study's database answers again",
    ]


def test_a_driver_reads_though_the_database_is_away_for_a_moment(
    storage_url: str, config: SearchConfig, breaking: list[str]
) -> None:
    study = create_study(storage_url, config)
    study.ask()
    with leased(study):
        breaking.append("get_trials")
        assert [trial.number for trial in study.trials()] == [0]
    breaking.append("get_trials")
    with pytest.raises(sqlalchemy.exc.OperationalError):  # a command that reads does not wait
        study.trials()


def test_first_trials_are_enqueued_once_though_an_answer_was_lost(
    storage_url: str, config: SearchConfig, breaking: list[str]
) -> None:
    study = SearchStudy.create(storage_url, config.study, config.space)
    breaking.append("enqueue_trial")
    study.enqueue_first_trials({"optimizer.learning_rate": 0.001})
    assert len(study.optuna_study.trials) == 1


def test_a_carried_over_trial_is_added_once_though_an_answer_was_lost(
    storage_url: str, config: SearchConfig, breaking: list[str]
) -> None:
    study = create_study(storage_url, config)
    number = study.ask().number
    study.finish(number, "COMPLETE", {}, 0.5)
    (trial,) = study.trials()
    with leased(study):
        for source in (0, 1):
            breaking.append("add_trial")
            origin = {"study": "another", "number": source}
            study.add(trial, trial.params, {"carried_over_from": origin})
        assert len(study.trials()) == 3
        assert study.ask().number == 3
