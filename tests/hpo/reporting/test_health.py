import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from finalist_trials import PARAMS, SPACE, trial
from verdicts import CLEAR, verdict_on

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.reporting.health import Grade, HealthCard, health_cards, health_rows
from hpo.reporting.searched import Searched
from hpo.schedulers.first_rung import FirstRung
from hpo.selection.calibration import Calibration
from hpo.study.trial import TrialSummary

RATE, DROP = SPACE
SPACE_AS_SET = {path: parameter.model_dump_json() for path, parameter in SPACE.items()}


@pytest.fixture
def searched(config: SearchConfig) -> Searched:
    """Twelve trials of two parameters, of which nothing is to be said but good."""
    long = config.study.model_copy(update={"num_trials": 12})
    config = config.model_copy(update={"space": SPACE, "study": long})
    trials = [trial(i, [0.5, 0.5 + i / 100], drop=0.2) for i in range(12)]
    return Searched(config, trials, num_val_images=100_000)


def card_of(searched: Searched, name: str) -> HealthCard:
    return next(card for card in health_cards(searched) if card.name == name)


def with_trials(searched: Searched, trials: Sequence[TrialSummary]) -> Searched:
    return dataclasses.replace(searched, trials=trials)


def test_a_sound_search_passes(searched: Searched) -> None:
    cards = health_cards(searched)
    assert {card.grade for card in cards} == {Grade.PASS}
    names = ["gain", "failures", "val images", "ranges", "length"]
    assert health_rows(cards) == {"PASS": ", ".join(names)}


def test_a_study_without_trials_has_little_to_say(searched: Searched) -> None:
    assert [card.name for card in health_cards(with_trials(searched, []))] == ["length"]


@pytest.mark.parametrize(
    ("values", "grade"),
    [(CLEAR, Grade.PASS), ({0: [0.8, 0.82], 7: [0.8, 0.81]}, Grade.WARN),
     ({7: [0.8], 0: [0.7]}, Grade.WARN)],
)  # fmt: skip
def test_the_gain_is_that_of_the_finalists(
    searched: Searched, values: dict[int, list[float | None]], grade: Grade
) -> None:
    with_verdict = dataclasses.replace(searched, verdict=verdict_on(values))
    assert card_of(with_verdict, "gain").grade == grade


def test_a_gain_within_the_noise_of_the_images_is_none_yet(searched: Searched) -> None:
    few = dataclasses.replace(searched, num_val_images=30)
    card = card_of(few, "gain")
    assert card.grade == Grade.WARN
    assert "trial 11 is 0.1100 better than the default so far (the val images" in card.text
    alone = with_trials(searched, searched.trials[:1])
    assert "nothing is better than the default" in card_of(alone, "gain").text


def test_few_images_cannot_tell_the_leaders_apart(searched: Searched) -> None:
    card = card_of(dataclasses.replace(searched, num_val_images=30), "val images")
    assert card.grade == Grade.WARN
    assert card.text.startswith("the best 5 trials lie within 0.0400, and 30 val images make ±")


@pytest.mark.parametrize(("num_failed", "grade"), [(1, Grade.WARN), (4, Grade.FAIL)])
def test_failures_are_told_by_their_cause(
    searched: Searched, num_failed: int, grade: Grade
) -> None:
    error = {"type": "OSError", "message": "no such file\nmore"}
    failed = [
        dataclasses.replace(trial(20 + i, [], state="FAIL"), attributes={"error": error})
        for i in range(num_failed)
    ]
    card = card_of(with_trials(searched, [*searched.trials, *failed]), "failures")
    assert card.grade == grade
    assert f"{num_failed} of them by OSError: no such file" in card.text
    assert card.remedy.endswith("trial 20")


def test_many_that_diverge_are_told(searched: Searched) -> None:
    diverged = [trial(20 + i, [0.1], state="PRUNED", reason="diverged") for i in range(4)]
    card = card_of(with_trials(searched, [*searched.trials, *diverged]), "divergence")
    assert card.text == "4 of 16 trials have diverged"


@pytest.mark.parametrize(
    ("path", "value", "setting"),
    [
        (RATE, 1.05e-4, f"--set space.{RATE}.low=3.33333e-05"),
        (RATE, 0.98e-2, f"--set space.{RATE}.high=0.03"),
        (DROP, 0.5, f"--set space.{DROP}.high=0.75"),
    ],
)
def test_an_end_of_a_range_where_the_best_lie_is_to_be_moved(
    searched: Searched, search_file: Path, path: str, value: float, setting: str
) -> None:
    moved = [
        dataclasses.replace(t, params={**PARAMS, DROP: 0.2, path: value}) for t in searched.trials
    ]
    card = card_of(with_trials(searched, moved), "ranges")
    assert card.grade == Grade.WARN
    assert card.remedy == f"widen them, and resume: {setting}"
    given, value_given = setting.removeprefix("--set space.").split("=")
    settings = [f"space.{p}={dump}" for p, dump in SPACE_AS_SET.items()]
    space = load_search_config(search_file, [*settings, setting.removeprefix("--set ")])[0].space
    assert getattr(space[path], given.rpartition(".")[2]) == float(value_given)


def test_a_rate_of_zero_lies_at_no_end(searched: Searched) -> None:
    moved = [dataclasses.replace(t, params={**PARAMS, DROP: 0.0}) for t in searched.trials]
    assert card_of(with_trials(searched, moved), "ranges").grade == Grade.PASS


def test_a_parameter_without_effect_is_named(searched: Searched) -> None:
    shares = {RATE: 0.995, DROP: 0.005}
    card = card_of(dataclasses.replace(searched, importances=shares), "parameters")
    assert (card.grade, card.text) == (Grade.WARN, f"of almost no effect: {DROP}")


def test_a_short_search_is_told(searched: Searched) -> None:
    study = searched.config.study.model_copy(update={"num_trials": 4})
    config = searched.config.model_copy(update={"study": study})
    card = card_of(dataclasses.replace(searched, config=config), "length")
    assert card.text == "4 trials are planned for 2 parameters"
    assert card.remedy.startswith("make it 8 or more")


@pytest.mark.parametrize(("agreement", "grade"), [(0.2, Grade.WARN), (0.9, Grade.PASS)])
def test_early_ranks_that_tell_nothing_are_named(
    searched: Searched, agreement: float, grade: Grade
) -> None:
    rung = FirstRung(epoch=2, late=8, num_trials=9, agreement={2: agreement})
    card = card_of(dataclasses.replace(searched, first_rung=rung), "first comparison")
    assert card.grade == grade
    assert f"by {agreement:.2f}" in card.text


def test_gpus_that_wait_are_told_with_the_findings_remedy(searched: Searched) -> None:
    finding = {"tag": "GPU under-used: input-bound", "evidence": "", "remedy": "more CPUs"}
    idle = [dataclasses.replace(t, attributes={"diagnosis": [finding]}) for t in searched.trials]
    assert card_of(with_trials(searched, idle), "GPU").remedy == "more CPUs"


def test_the_worst_comes_first(searched: Searched) -> None:
    failed = [trial(20 + i, [], state="FAIL") for i in range(9)]
    few = dataclasses.replace(searched, trials=[*searched.trials, *failed], num_val_images=30)
    grades = [card.grade for card in health_cards(few)]
    assert grades == sorted(grades, key=[Grade.FAIL, Grade.WARN, Grade.PASS].index)
    assert next(iter(health_rows(health_cards(few)))) == "FAIL failures"


@pytest.mark.parametrize(
    ("share", "text", "grade"),
    [
        (0.6, "pays for about 12 trials at the pace so far; 2 parameters want 8", Grade.PASS),
        (1.0, "pays for about 4 trials at the pace so far; 2 parameters want 8", Grade.WARN),
    ],
)
def test_a_budget_that_is_too_short_for_the_space_is_told_while_it_lasts(
    searched: Searched, share: float, text: str, grade: Grade
) -> None:
    begun = searched.trials[: 4 if grade == Grade.WARN else 12]
    card = card_of(dataclasses.replace(searched, trials=begun, budget_share=share), "budget")
    assert (card.grade, card.text) == (grade, f"the budget {text}")
    early = dataclasses.replace(searched, trials=begun, budget_share=0.05)
    assert "budget" not in [one.name for one in health_cards(early)]


def test_a_budget_that_has_ended_the_search_too_early_is_told(searched: Searched) -> None:
    ended = dataclasses.replace(searched, trials=searched.trials[:5], is_limited=True)
    card = card_of(ended, "budget")
    assert card.grade == Grade.WARN
    assert card.text == "the budget has ended the search after 5 trials; 2 parameters want 8"
    assert card_of(ended, "length").grade == Grade.PASS  # its plan was long enough


def test_a_budget_that_is_used_up_by_the_last_trial_has_paid_for_all(searched: Searched) -> None:
    num = searched.config.study.num_trials
    assert len(searched.trials) >= num
    ended = dataclasses.replace(searched, trials=searched.trials[:num], is_limited=True)
    card = card_of(ended, "budget")
    assert card.grade == Grade.PASS
    assert card.text == f"the budget has paid for all {num} trials; 2 parameters want 8"


@pytest.mark.parametrize(("inside", "grade"), [(16, Grade.PASS), (11, Grade.WARN)])
def test_a_surrogate_that_is_too_sure_is_told(
    searched: Searched, inside: int, grade: Grade
) -> None:
    found = Calibration(inside, 20, 0.8)
    card = card_of(dataclasses.replace(searched, calibration=found), "forecasts")
    assert card.grade == grade
    assert f"{inside} of 20 values at rungs lay inside the surrogate's 80% intervals" in card.text
