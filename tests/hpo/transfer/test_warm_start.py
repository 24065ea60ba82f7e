from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.config.search_space import (
    CategoricalParameter,
    FloatParameter,
    Params,
    Space,
    default_params,
)
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy
from hpo.transfer.warm_start import (
    MIN_DISTANCE,
    NUM_PROPOSALS,
    different,
    first_rung_of_earlier,
    warm_start_params,
)
from sgformer.errors import ConfigError

DROP, RATE = "model.drop_rate", "optimizer.learning_rate"
Earlier = Callable[..., Path]


def curve_of(params: Params) -> Curve:
    """A curve with better values the nearer drop_rate is to 0.2."""
    return Curve([0.9 - abs(float(params.get(DROP) or 0.0) - 0.2)] * 4, [1.0] * 4)


@pytest.fixture
def earlier(search_file: Path, tmp_path: Path) -> Earlier:
    """A function that makes the folder of a search that has ended."""

    def make(name: str, *overrides: str) -> Path:
        run = RunFolder(tmp_path / name)
        run.make()
        config = load_search_config(search_file, ("study.num_trials=20", *overrides), name=name)[0]
        run.save_config(config)
        study = SearchStudy.create(run.storage_url(config), config.study, config.space)
        study.metadata.search_config = config.model_dump(mode="json")
        SimulatedSearch(config, curve_of, 1, study).run()
        return run.path

    return make


def beginning(
    search_file: Path, *sources: Path | str, overrides: tuple[str, ...] = ()
) -> SearchConfig:
    listed = ", ".join(f"'{source}'" for source in sources)
    return load_search_config(search_file, (*overrides, f"study.warm_start=[{listed}]"))[0]


@pytest.mark.parametrize("scheduler", ["freeze_thaw", "asha"])
def test_the_best_of_an_earlier_study_come_first(
    search_file: Path, earlier: Earlier, scheduler: str
) -> None:
    run = earlier("a", f"scheduler={{name: {scheduler}}}", "study.sampler=null")
    config = beginning(search_file, run)
    proposals = warm_start_params(config)
    assert 1 <= len(proposals) <= NUM_PROPOSALS
    assert float(proposals[0][DROP]) == pytest.approx(0.2, abs=0.06)  # type: ignore[arg-type]
    assert all(config.space[path].contains(v) for p in proposals for path, v in p.items())


def test_none_is_nearly_another_or_the_default(search_file: Path, earlier: Earlier) -> None:
    from hpo.surrogate.encoding import UnitCube

    config = beginning(search_file, earlier("a"))
    cube = UnitCube(config.space)
    every = [default_params(config.train, config.space), *warm_start_params(config)]
    points = [cube.encode(params) for params in every]
    for i, point in enumerate(points):
        for other in points[:i]:
            assert abs(point - other).max() >= MIN_DISTANCE


def test_studies_take_turns(search_file: Path, earlier: Earlier) -> None:
    narrow = f"space.{DROP}={{type: float, low: 0.4, high: 0.5, step: 0.05}}"
    first = earlier("a")
    second = earlier("b", narrow, "train.model.drop_rate=0.5")
    drops = [
        float(params[DROP])  # type: ignore[arg-type]
        for params in warm_start_params(beginning(search_file, first, second))
    ]
    assert drops[0] < 0.4 <= drops[1]


def test_an_open_setting_of_an_earlier_study_has_the_models_own_value(
    search_file: Path, earlier: Earlier
) -> None:
    opened = "train.data.crop_pct=null"
    crop = "space.data.crop_pct={type: float, low: 0.8, high: 1.0}"
    config = beginning(search_file, earlier("a", opened), overrides=(opened, crop))
    assert warm_start_params(config)[0]["data.crop_pct"] == pytest.approx(0.875)


def test_numbers_move_into_the_space_onto_its_steps(search_file: Path, earlier: Earlier) -> None:
    narrow = f"space.{DROP}={{type: float, low: 0.3, high: 0.5, step: 0.1}}"
    overrides = (narrow, "train.model.drop_rate=0.5")
    config = beginning(search_file, earlier("a"), overrides=overrides)
    assert warm_start_params(config)[0][DROP] == pytest.approx(0.3)


def test_what_was_not_searched_is_as_it_was_trained(search_file: Path, earlier: Earlier) -> None:
    added = "space.model.attn_drop_rate={type: float, low: 0, high: 0.3}"
    run = earlier("a", "train.model.attn_drop_rate=0.15")
    proposals = warm_start_params(beginning(search_file, run, overrides=(added,)))
    assert {params["model.attn_drop_rate"] for params in proposals} == {0.15}


def test_a_study_is_named_by_its_storage_too(search_file: Path, earlier: Earlier) -> None:
    run = earlier("a")
    by_url = beginning(search_file, f"sqlite:///{run / 'study.db'}#a")
    assert warm_start_params(by_url) == warm_start_params(beginning(search_file, run))


def test_they_are_tried_after_the_default_and_not_asked_for_twice(
    search_file: Path, earlier: Earlier
) -> None:
    config = beginning(search_file, earlier("a"))
    study = SearchStudy.in_memory(config.study, config.space)
    proposals = warm_start_params(config)
    study.metadata.warm_start = proposals
    for _ in range(2):
        study.enqueue_first_trials(default_params(config.train, config.space))
    asked = [study.ask().params for _ in range(1 + len(proposals))]
    assert asked == [default_params(config.train, config.space), *proposals]
    assert not study.has_waiting


def test_a_search_that_a_good_one_went_before_begins_better(
    search_file: Path, earlier: Earlier
) -> None:
    config = beginning(search_file, earlier("a"), overrides=("study.num_trials=4",))
    search = SimulatedSearch(config, curve_of, 1)
    search.study.metadata.warm_start = warm_start_params(config)
    search.study.enqueue_first_trials(default_params(config.train, config.space))
    search.run()
    assert max(max(t.curve.values()) for t in search.study.trials()) > 0.83


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gone", StudyError, "not a run folder: gone has no search.yaml"),
        ("sqlite:///gone.db#a", StudyError, "study.warm_start: no file sqlite:///gone.db"),
        ("sqlite:///gone.db", ConfigError, "'sqlite:///gone.db' names no study of the database"),
        ("runs/a#x", ConfigError, "study.warm_start: 'runs/a' of 'runs/a#x' is no storage's URL"),
    ],
)
def test_a_study_that_is_not_there_is_named(
    search_file: Path, source: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        warm_start_params(beginning(search_file, source))


def test_a_study_of_another_name_is_not_there(search_file: Path, earlier: Earlier) -> None:
    url = f"sqlite:///{earlier('a') / 'study.db'}"
    with pytest.raises(StudyError, match=f"no study 'b' in {url}"):
        warm_start_params(beginning(search_file, f"{url}#b"))


def test_a_study_of_another_program_is_refused(search_file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    config = load_search_config(search_file, name="a")[0]
    SearchStudy.create(url, config.study, config.space)
    with pytest.raises(StudyError, match=r"study 'a' in .* was not made by this program"):
        warm_start_params(beginning(search_file, f"{url}#a"))


def test_a_study_with_nothing_for_this_space_is_refused(
    search_file: Path, earlier: Earlier
) -> None:
    run = earlier("a")
    other = ("space.model.name={type: categorical, choices: [sg_former_b0, sg_former_b1]}",
             "train.model.name=sg_former_b0")  # fmt: skip
    with pytest.raises(ConfigError, match=r"of the 20 trials of .* none has a value and choices"):
        warm_start_params(beginning(search_file, run, overrides=other))


def test_a_password_has_no_place_in_the_file(search_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"study.warm_start: .*holds a password"):
        beginning(search_file, "postgresql://me:secret@host/db#a")


FULL = ("scheduler={name: none}", "study.sampler=random")


@pytest.mark.parametrize("scheduler", ["freeze_thaw", "asha"])
@pytest.mark.parametrize("length", [8, 4])
def test_whole_curves_of_earlier_studies_say_where_trials_are_first_compared(
    search_file: Path, earlier: Earlier, scheduler: str, length: int
) -> None:
    run = earlier("a", *FULL)  # of four epochs, the ranks of the first are final
    overrides = (f"scheduler={{name: {scheduler}}}", f"train.max_epochs={length}")
    found = first_rung_of_earlier(beginning(search_file, run, run, overrides=overrides))
    if length == 8 or scheduler == "asha":  # of other lengths, or no room for four epochs
        assert found is None
        return
    assert found is not None
    assert (found.epoch, found.late, found.num_trials, found.from_trial) == (1, 4, 40, 0)
    assert found.is_of_earlier_studies


def test_a_first_level_that_is_set_or_of_no_use_is_not_chosen(
    search_file: Path, earlier: Earlier
) -> None:
    run = earlier("a", *FULL)
    for scheduler in ("{name: freeze_thaw, min_epochs: 1}", "{name: none}"):
        overrides = (f"scheduler={scheduler}",)
        assert first_rung_of_earlier(beginning(search_file, run, overrides=overrides)) is None
    loss = ("study.objectives=[[val_loss, minimize]]", "scheduler={name: freeze_thaw}")
    assert first_rung_of_earlier(beginning(search_file, run, overrides=loss)) is None


def test_configurations_of_different_choices_are_never_nearly_the_same() -> None:
    models = tuple(f"b{i}" for i in range(12))
    space: Space = {
        "model.name": CategoricalParameter(type="categorical", choices=models),
        DROP: FloatParameter(type="float", low=0.0, high=0.5),
    }
    default: Params = {"model.name": "b4", DROP: 0.2}
    beside: Params = {"model.name": "b5", DROP: 0.2}
    nearly: Params = {"model.name": "b5", DROP: 0.21}
    further: Params = {"model.name": "b5", DROP: 0.3}
    assert different(space, default, [(default, beside, nearly, further)]) == (beside, further)
