import math
from dataclasses import replace

import pytest
from verdicts import CLEAR, trainings, verdict_on

from hpo.config.objectives import Constraint
from hpo.selection.verdict import finalist_values, judge, verdict_values, with_teacher
from sgformer.config import Metric


@pytest.mark.parametrize(
    ("values", "metric", "winner", "sign"),
    [
        (CLEAR, "val_top1", 7, 1),
        (CLEAR, "val_loss", 0, -1),
        ({7: [0.5, 0.6], 0: [0.6, 0.5]}, "val_top1", 0, 1),
        ({7: [0.6, 0.6], 4: [0.6, 0.6], 0: [0.5, 0.5]}, "val_macro_f1", 7, 1),
    ],
)
def test_the_best_mean_wins_and_of_equals_the_default(
    values: dict[int, list[float | None]], metric: Metric, winner: int, sign: int
) -> None:
    verdict = verdict_on(values, metric)
    assert verdict.winner == winner
    assert [t.trial for t in verdict.trainings] == [winner, winner]
    means = {n: sum(v or 0 for v in of_seeds) / 2 for n, of_seeds in values.items()}
    for number, gain in verdict.gains.items():
        assert gain.mean == pytest.approx(sign * (means[number] - means[0]))


def test_who_diverged_at_once_on_a_seed_is_out() -> None:
    verdict = verdict_on({3: [0.9, None], 4: [0.6, 0.7], 0: [0.5, 0.4]})
    assert verdict.winner == 4
    assert set(verdict.means) == {4, 0}
    assert judge((3, 0), trainings({3: [None], 0: [None]}), "val_top1", 300, None) is None


def test_who_loses_too_much_in_8_bit_integers_is_compared_with_and_cannot_win() -> None:
    values: dict[int, list[float | None]] = {7: [0.9, 0.9], 4: [0.7, 0.7], 0: [0.5, 0.5]}
    drops = {7: [0.0, 0.03], 4: [0.02, 0.0], 0: [None, None]}
    told = [
        replace(t, int8_top1_drop=drops[t.trial][t.seed - 1]) for t in trainings(values)
    ]  # fmt: skip
    bound = Constraint.model_validate("int8_top1_drop <= 0.01")

    def winner(bounds: list[Constraint]) -> int:
        verdict = judge([7, 4, 0], told, "val_top1", 300, None, bounds=bounds)
        assert verdict is not None
        assert set(verdict.means) == {7, 4, 0}
        return verdict.winner

    assert winner([]) == 7
    assert winner([bound]) == 4


def test_values_for_programs_and_the_leaderboard() -> None:
    verdict = verdict_on(CLEAR)
    values = verdict_values(verdict)
    assert (values["number"], values["num_seeds"], values["is_within_noise"]) == (7, 2, False)
    assert values["best_epochs"] == [8, 8]
    gain = values["gain_over_default"]
    assert gain["mean"] == pytest.approx(0.315)
    assert gain["low"] < gain["mean"] < gain["high"]
    row = finalist_values(verdict, 7)
    assert (row["gain"], row["gain_low"]) == (gain["mean"], gain["low"])
    assert row["mean_on_fresh_seeds"] == pytest.approx(0.82)
    assert finalist_values(verdict, 0)["gain"] is None
    assert set(finalist_values(verdict, 99).values()) == {None}


@pytest.mark.parametrize(
    ("metric", "values", "least", "most"),
    [
        ("val_top1", {7: [0.99, 0.9, 0.999], 0: [0.2, 0.01, 0.02]}, 0.0, 1.0),
        ("val_macro_f1", {7: [0.99, 0.9, 0.999], 0: [0.2, 0.01, 0.02]}, 0.0, 1.0),
        ("val_loss", {7: [0.1, 0.02, 0.3], 0: [9.0, 2.0, 1.0]}, 0.0, math.inf),
    ],
)
def test_no_interval_goes_beyond_what_the_metric_can_be(
    metric: Metric, values: dict[int, list[float | None]], least: float, most: float
) -> None:
    verdict = verdict_on(values, metric, num_val_images=30)
    assert verdict.winner == 7
    told = verdict_values(verdict)
    mean, gain = told[metric], told["gain_over_default"]
    assert least <= mean["low"] < mean["mean"] < mean["high"] <= most
    assert least in {mean["low"], 1 - mean["high"]}  # the uncut interval goes beyond
    assert -most <= gain["low"] < gain["high"] <= most
    row = finalist_values(verdict, 7)
    assert (row["gain_low"], row["gain_high"]) == (gain["low"], gain["high"])


def test_a_gain_of_shares_is_one_at_most() -> None:
    told = verdict_values(verdict_on({7: [0.99, 0.5, 0.9], 0: [0.2, 0.4, 0.02]}))
    assert told["is_within_noise"]
    assert -1.0 <= told["gain_over_default"]["low"] < 0
    assert told["gain_over_default"]["high"] == 1.0


@pytest.mark.parametrize(("metric", "sign"), [("val_top1", 1), ("val_loss", -1)])
def test_what_a_teacher_adds_is_paired_with_the_winner_without_it(
    metric: Metric, sign: int
) -> None:
    verdict = verdict_on({7: [0.81, 0.83]}, metric)
    alone = trainings({7: [0.70, 0.73]})
    found = with_teacher(verdict, alone, 10_000, None)
    assert found.teacher is not None
    assert found.teacher.alone.mean == pytest.approx(0.715)
    assert found.teacher.gain.mean == pytest.approx(sign * 0.105)
    values = verdict_values(found)
    assert values["gain_of_teacher"]["low"] < sign * 0.105 < values["gain_of_teacher"]["high"]
    assert values["without_teacher"]["mean"] == pytest.approx(0.715)


@pytest.mark.parametrize("alone", [[], [0.7, None]])
def test_what_a_teacher_adds_is_unknown_where_a_training_without_it_has_no_value(
    alone: list[float | None],
) -> None:
    verdict = verdict_on(CLEAR)
    found = with_teacher(verdict, trainings({7: alone}) if alone else [], 10_000, None)
    assert found == verdict
    assert verdict_values(found)["gain_of_teacher"] is None
