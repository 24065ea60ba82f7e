from pathlib import Path
from typing import Any

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, apply_params
from hpo.errors import StudyError
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy
from hpo.transfer.prior_trials import find_surrogate, params_of

RATE, DROP, ATTENTION = "optimizer.learning_rate", "model.drop_rate", "model.attn_drop_rate"
ADDED = f"space.{ATTENTION}={{type: float, low: 0, high: 0.3}}"
IMAGES = {"classes": ["0", "1"], "train": 60, "content": "a"}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, name="own")[0]


@pytest.fixture
def own(config: SearchConfig) -> SearchStudy:
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.images = IMAGES
    return study


def changed(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, ("study.num_trials=12", *overrides), name="other")[0]


def study_of(config: SearchConfig, images: dict[str, Any] | None = None) -> SearchStudy:
    """A study whose trials have run."""

    def curve_of(params: Params) -> Curve:
        max_epochs = config.train.max_epochs
        return Curve([float(params.get(DROP) or 0.5)] * max_epochs, [1.0] * max_epochs)

    search = SimulatedSearch(config, curve_of, 1)
    search.run()
    search.study.metadata.images = images or IMAGES
    return search.study


@pytest.mark.parametrize("override", ["study.seed=5", "train.seed=5", "scheduler={}"])
def test_all_trials_of_the_same_space_are_seen(
    config: SearchConfig, own: SearchStudy, search_file: Path, override: str
) -> None:
    other = changed(search_file, override)
    study = study_of(other)
    found = find_surrogate(config, own, other, study)
    assert (found.name, found.num_trials) == ("other", len(study.trials()))
    assert [(t.params, t.curve) for t in found.trials] == [
        (t.params, t.curve) for t in study.trials()
    ]


def test_of_a_wider_space_those_inside_are_seen(
    config: SearchConfig, own: SearchStudy, search_file: Path
) -> None:
    other = changed(search_file, f"space.{RATE}.high=1.0")
    study = study_of(other)
    found = find_surrogate(config, own, other, study)
    inside = [t.number for t in study.trials() if float(t.params[RATE] or 0) <= 1e-2]
    assert [t.number for t in found.trials] == inside
    assert 0 < len(inside) < found.num_trials == 12


def test_a_parameter_that_is_fixed_there_has_its_value_there(
    config: SearchConfig, own: SearchStudy, search_file: Path
) -> None:
    other = changed(search_file, f"train.{DROP}=0.35")
    other = other.model_copy(update={"space": {RATE: other.space[RATE]}})
    study = study_of(other)
    found = find_surrogate(config, own, other, study)
    assert [t.params for t in found.trials] == [
        {RATE: t.params[RATE], DROP: 0.35} for t in study.trials()
    ]


def test_a_parameter_that_is_fixed_here_must_have_its_value(
    config: SearchConfig, own: SearchStudy, search_file: Path
) -> None:
    other = changed(search_file, ADDED)
    found = find_surrogate(config, own, other, study_of(other))
    # The default configuration alone: the others drop attention weights.
    assert [(t.number, set(t.params)) for t in found.trials] == [(0, {RATE, DROP})]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.max_epochs=6"], "of the 12 trials of study 'other' none.*max_epochs: 6 there, 4"),
        (["train.data.val_fraction=0.3"], "none.*data.val_fraction: 0.3 there, 0.2 here"),
        (
            [f"space.{RATE}.low=0.1", f"space.{RATE}.high=1", f"train.{RATE}=0.5"],
            "none.*learning_rate: searched in 0.1..1 there, searched in 0.0001..0.01 here",
        ),
        (
            [ADDED.replace("low: 0,", "low: 0.1,"), f"train.{ATTENTION}=0.2"],
            "none.*attn_drop_rate: searched in 0.1..0.3 there, 0.0 here",
        ),
        (
            ["study.objectives=[[val_loss, minimize]]"],
            "study 'other' is of val_loss, and study 'own' of val_top1",
        ),
    ],
)
def test_a_study_that_says_nothing_of_the_space_is_refused(
    config: SearchConfig,
    own: SearchStudy,
    search_file: Path,
    overrides: list[str],
    message: str,
) -> None:
    other = changed(search_file, *overrides)
    study = SearchStudy.in_memory(other.study, other.space)
    study = study if "val_loss" in overrides[0] else study_of(other)
    with pytest.raises(StudyError, match=f"(?s){message}"):
        find_surrogate(config, own, other, study)


def test_a_study_without_epochs_is_refused(
    config: SearchConfig, own: SearchStudy, search_file: Path
) -> None:
    other = changed(search_file)
    study = SearchStudy.in_memory(other.study, other.space)
    study.ask()
    with pytest.raises(StudyError, match="of the 1 trials of study 'other' none with an epoch"):
        find_surrogate(config, own, other, study)


def test_a_study_of_other_images_is_refused(
    config: SearchConfig, own: SearchStudy, search_file: Path
) -> None:
    other = changed(search_file)
    study = study_of(other, {**IMAGES, "content": "b"})
    with pytest.raises(
        StudyError, match=r"made over other images: .*'content': 'b'.* study 'own'"
    ):
        find_surrogate(config, own, other, study)


def test_a_value_that_steps_add_up_to_is_inside(search_file: Path) -> None:
    config = changed(search_file, f"space.{DROP}.high=0.3")
    train = apply_params(config.train, {RATE: 1e-3, DROP: 0.1 + 0.2}, "here")
    params = params_of(config, train.model_copy(update={"seed": 7}))
    assert params == {RATE: 1e-3, DROP: 0.3}
    assert params_of(config, apply_params(train, {"label_smoothing": 0.3}, "here")) is None
