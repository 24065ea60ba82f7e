from pathlib import Path
from typing import Any

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from hpo.transfer.carry_over import carried_params, carry_over, continuation
from sgformer.errors import ConfigError

RATE, DROP = "optimizer.learning_rate", "model.drop_rate"
ADDED = "space.model.attn_drop_rate={type: float, low: 0, high: 0.3}"


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


def changed(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, overrides)[0]


def summary(params: dict[str, Any]) -> TrialSummary:
    return TrialSummary(0, "COMPLETE", 0.5, params, {1: 0.5}, {})


@pytest.mark.parametrize(
    ("override", "params", "expected"),
    [
        (f"space.{RATE}.high=1e-1", {RATE: 5e-3, DROP: 0.3}, {RATE: 5e-3, DROP: 0.3}),
        (f"space.{RATE}.high=3e-3", {RATE: 1e-3, DROP: 0.3}, {RATE: 1e-3, DROP: 0.3}),
        (f"space.{RATE}.high=3e-3", {RATE: 5e-3, DROP: 0.3}, None),
        (
            ADDED,
            {RATE: 5e-3, DROP: 0.3},
            {RATE: 5e-3, DROP: 0.3, "model.attn_drop_rate": 0.0},
        ),
        (f"space.{DROP}.step=0.1", {RATE: 5e-3, DROP: 0.3}, {RATE: 5e-3, DROP: 0.3}),
        (f"space.{DROP}.step=0.1", {RATE: 5e-3, DROP: 0.25}, None),
        # The float that 0 + 6 * 0.05 gives.
        (f"space.{DROP}.high=0.3", {RATE: 5e-3, DROP: 0.05 * 6}, {RATE: 5e-3, DROP: 0.3}),
    ],
)
def test_a_trial_is_carried_over_if_it_lies_in_the_new_space(
    config: SearchConfig,
    search_file: Path,
    override: str,
    params: dict[str, Any],
    expected: dict[str, Any] | None,
) -> None:
    new = changed(search_file, override)
    assert carried_params(summary(params), config.space, new.space, new.train) == expected


@pytest.mark.parametrize(("value", "fits"), [(0.1, True), (0.3, False)])
def test_what_is_no_longer_searched_must_have_had_its_default(
    config: SearchConfig, value: float, fits: bool
) -> None:
    new = {RATE: config.space[RATE]}
    params = carried_params(summary({RATE: 1e-3, DROP: value}), config.space, new, config.train)
    assert params == ({RATE: 1e-3} if fits else None)


def test_a_run_goes_on_itself_unless_its_space_has_changed(
    config: SearchConfig, search_file: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "runs" / "tiny")
    assert continuation(config, run).run == run  # a new one
    run.make()
    run.save_config(config)
    assert continuation(config, run).predecessor is None
    more = changed(search_file, "study.num_trials=9")
    assert (continuation(more, run).run, continuation(more, run).config.study.name) == (
        run,
        "tiny",
    )
    wider = changed(search_file, f"space.{RATE}.high=1e-1")
    now = continuation(wider, run)
    assert (now.run.path.name, now.config.study.name, now.predecessor) == ("tiny-2", "tiny-2", run)
    now.run.make()
    now.run.save_config(now.config)
    again = continuation(wider, run)
    assert (again.run.path.name, again.predecessor) == ("tiny-2", None)
    third = continuation(changed(search_file, ADDED), run)
    assert (third.run.path.name, third.predecessor) == ("tiny-3", now.run)


def test_what_differs_otherwise_is_left_to_be_refused(
    config: SearchConfig, search_file: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "tiny")
    run.make()
    run.save_config(config)
    other = changed(search_file, f"space.{RATE}.high=1e-1", "train.max_epochs=9")
    assert continuation(other, run).run == run


def test_another_kind_of_parameter_is_refused(
    config: SearchConfig, search_file: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "tiny")
    run.make()
    run.save_config(config)
    other = changed(search_file, f"space.{RATE}={{type: categorical, choices: [1e-3, 2e-3]}}")
    with pytest.raises(ConfigError, match=rf"space\.{RATE}: float -> categorical"):
        continuation(other, run)


def test_trials_move_with_states_curves_and_folders_and_only_once(
    config: SearchConfig, search_file: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "tiny")
    run.make()
    run.save_config(config)
    old = create_study(run.storage_url(config), config)
    for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING"):
        number = old.ask().number
        old.report(number, {1: 0.25, 2: 0.5})
        (run.trials / str(number)).mkdir(parents=True)
        (run.trials / str(number) / "epochs.csv").write_text(state)
        if state != "RUNNING":
            old.finish(number, state, {"seconds": 3}, 0.5 if state == "COMPLETE" else None)
    now = continuation(changed(search_file, ADDED), run)
    now.run.make()
    new = SearchStudy.create(now.run.storage_url(now.config), now.config.study, now.config.space)
    for _ in range(2):
        assert carry_over(old, new, config, now) == (4, 4)
    before, after = old.trials(), new.trials()
    assert [(t.number, t.state, t.value, t.curve) for t in after] == [
        (t.number, t.state, t.value, t.curve) for t in before
    ]
    assert all(t.params["model.attn_drop_rate"] == 0 for t in after)
    assert after[0].attributes["seconds"] == 3
    came_from = after[2].attributes["carried_over_from"]
    assert (came_from["study"], came_from["number"]) == ("tiny", 2)
    assert came_from["num_epochs"] == after[2].num_epochs
    assert (now.run.trials / "3" / "epochs.csv").read_text() == "RUNNING"
    assert new.metadata.carried_from == {"study": "tiny", "num_carried_over": 4, "num_trials": 4}
    assert old.metadata.carried_to == "tiny-2"
    (running,) = new.interrupted()
    assert (running.number, running.num_epochs_reported) == (3, 2)
    assert new.ask().number == 4


def test_several_objectives_constraints_and_what_was_measured_move_too(
    search_file: Path, tmp_path: Path
) -> None:
    several = (
        "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]",
        "study.constraints=[latency_ms <= 5]",
    )
    config = changed(search_file, *several)
    run = RunFolder(tmp_path / "tiny")
    run.make()
    run.save_config(config)
    old = create_study(run.storage_url(config), config)
    old.metadata.architectures = {"sg_former_pico at 32 pixels": {"latency_ms": 2.0}}
    for state, value in (("COMPLETE", 0.5), ("PRUNED", None)):
        number = old.ask().number
        old.report(number, {1: 0.25, 2: 0.5})
        old.finish(number, state, {"latency_ms": 2.0}, value, {"latency_ms <= 5": -0.6})
    now = continuation(changed(search_file, ADDED, *several), run)
    now.run.make()
    new = SearchStudy.create(now.run.storage_url(now.config), now.config.study, now.config.space)
    assert carry_over(old, new, config, now) == (2, 2)
    assert new.metadata.architectures == old.metadata.architectures
    for before, after in zip(old.trials(), new.trials(), strict=True):
        assert (before.value, before.curve) == (after.value, after.curve)
        assert after.constraints == {"latency_ms <= 5": -0.6}
    assert new.optuna_study.trials[0].values == [0.5, 2.0]
