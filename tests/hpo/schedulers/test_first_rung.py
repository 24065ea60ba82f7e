import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SchedulerConfig, SearchConfig
from hpo.schedulers.first_rung import (
    MIN_TRIALS,
    Curve,
    FirstRung,
    choose_first_rung,
    first_rung_text,
    is_due,
    read_first_rungs,
    with_first_rung,
)

MAX_EPOCHS = 52
NUM_TRIALS = 40


def training(quality: float, steady_from: int, before: float = 0.0, length: int = 52) -> Curve:
    """A curve: `quality` from epoch `steady_from` on, `before` until then, and a slight trend."""
    return {
        epoch: epoch / 100 + (quality if epoch >= steady_from else before)
        for epoch in range(1, length + 1)
    }


def trainings(
    steady_from: int, before: float, num_long: int = NUM_TRIALS, late: int = MAX_EPOCHS
) -> list[Curve]:
    """Curves of shuffled qualities in [0, 1); early values are `before` times the quality."""
    qualities = np.random.default_rng(0).permutation(NUM_TRIALS) / NUM_TRIALS
    return [
        training(float(q), steady_from, before * float(q), late if i < num_long else 8)
        for i, q in enumerate(qualities)
    ]


def chosen(curves: list[Curve], **settings: Any) -> FirstRung:
    found = choose_first_rung([curves], MAX_EPOCHS, **settings)
    assert found is not None
    return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("steady_from", "before", "expected"),
    [
        (1, 0.0, 2),  # ranks are final from the first epoch on
        (3, -1.0, 4),  # ranks are inverted until epoch 3
        (9, -1.0, 15),
        (20, -1.0, 28),
        (20, 0.0, 28),  # values are equal until epoch 20
    ],
)
def test_the_smallest_useful_epoch_is_chosen(
    sign: float, steady_from: int, before: float, expected: int
) -> None:
    curves = [{e: sign * v for e, v in c.items()} for c in trainings(steady_from, before)]
    found = chosen(curves, from_trial=7)
    assert (found.epoch, found.late, found.num_trials) == (expected, MAX_EPOCHS, NUM_TRIALS)
    assert found.from_trial == 7
    assert set(found.agreement) == {2, 4, 8, 15}
    is_useful = [epoch for epoch in found.agreement if epoch >= steady_from]
    assert all(found.agreement[epoch] == pytest.approx(1.0) for epoch in is_useful)


def test_the_default_holds_where_ranks_agree_somewhat_and_earlier_ones_less_than_nearly() -> None:
    rng = np.random.default_rng(0)
    curves = []
    for q in rng.standard_normal(200):
        noise = rng.standard_normal(MAX_EPOCHS).cumsum()[::-1] / 10
        curves.append({e: float(q + noise[e - 1]) for e in range(1, MAX_EPOCHS + 1)})
    found = chosen(curves)
    assert found.epoch == 8
    assert 0.5 < found.agreement[8] < 0.9
    assert chosen(curves, default=4).epoch == 4


@pytest.mark.parametrize(("num_trials", "expected"), [(8, 8), (80, 28)])
def test_few_trials_need_clearer_evidence(num_trials: int, expected: int) -> None:
    curves = [
        training(
            i + 1.0, 20, before=(i // 8) * 0.1 + [3.0, 7.0, 1.0, 6.0, 2.0, 8.0, 5.0, 4.0][i % 8]
        )
        for i in range(num_trials)
    ]
    found = chosen(curves)
    assert found.agreement[8] < 0.5
    assert found.epoch == expected


def test_studies_of_one_late_trial_each_do_not_move_the_rung() -> None:
    """Only the default reached its end in each study, so ranks at the end are unknown."""
    rng = np.random.default_rng(0)
    studies = []
    for _ in range(9):
        early, late = rng.permutation(12) / 12, rng.permutation(12) / 12
        studies.append(
            [
                training(float(late[i]), 9, float(early[i]), MAX_EPOCHS if i == 0 else 8)
                for i in range(12)
            ]
        )
    assert choose_first_rung(studies, MAX_EPOCHS) is None


@pytest.mark.parametrize("num_late", [2, 3])
def test_studies_of_few_late_trials_have_no_say_beside_one_that_tells(num_late: int) -> None:
    misleading = trainings(1, 0.0, num_late)  # ranks seem final at once
    found = choose_first_rung([misleading] * 9 + [trainings(20, -1.0)], MAX_EPOCHS)
    assert found == chosen(trainings(20, -1.0))


def rank_noise(correlation: float, seed: int) -> list[Curve]:
    """40 trials' values at the rungs; `correlation` is that of each rung with the next one.

    15 trials reach epoch 15, 8 reach epoch 28, 4 the end.
    """
    rng = np.random.default_rng(seed)
    values = {epoch: np.zeros(40) for epoch in (2, 4, 8, 15, 28, 52)}
    before = rng.standard_normal(40)
    for epoch in values:
        noise = rng.standard_normal(40)
        before = correlation * before + math.sqrt(1 - correlation**2) * noise
        values[epoch] = before
    alive, curves = np.arange(40), [dict[int, float]() for _ in range(40)]
    for epoch, num_next in zip(values, (40, 40, 15, 8, 4, 4), strict=True):
        for i in alive:
            curves[i][epoch] = float(values[epoch][i])
        alive = alive[np.argsort(-values[epoch][alive])[:num_next]]
    return curves


def moved(correlation: float, num_searches: int = 150) -> tuple[float, float]:
    """The shares of searches that raise, and that lower, the first rung from epoch 8."""
    found = [
        choose_first_rung([rank_noise(correlation, s)], MAX_EPOCHS) for s in range(num_searches)
    ]
    epochs = [one.epoch for one in found if one]
    return sum(e > 8 for e in epochs) / num_searches, sum(e < 8 for e in epochs) / num_searches


def test_the_rung_is_moved_where_ranks_say_so_and_seldom_otherwise() -> None:
    """Bounds are three standard errors from benchmarks/first_rung_error_rates.py's rates."""
    agreeing, somewhat, hardly = moved(0.94), moved(0.8), moved(0.5)
    assert agreeing[0] < 0.05  # epochs 8 and 28 correlate by 0.87
    assert agreeing[1] < 0.05  # epochs 4 and 28 correlate by 0.82
    assert somewhat[0] < 0.16  # epochs 8 and 28 correlate by 0.62
    assert hardly[0] > 0.25  # epochs 8 and 28 correlate by 0.24
    assert moved(0.99)[1] > 0.45  # epochs 4 and 28 correlate by 0.97


def test_few_trials_that_agree_nearly_do_not_lower_the_level() -> None:
    order = [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0]  # Spearman's correlation is 0.90
    for repeats, expected in ((1, 8), (20, 2)):
        curves = [
            training(10 * r + i + 1.0, 8, before=10 * r + order[i])
            for r in range(repeats)
            for i in range(8)
        ]
        found = chosen(curves)
        assert found.agreement[2] > 0.8
        assert found.epoch == expected


@pytest.mark.parametrize(
    ("num_long", "late", "expected"),
    [(MIN_TRIALS, 28, 28), (MIN_TRIALS, 52, 52), (MIN_TRIALS - 1, 52, None), (40, 25, None)],
)
def test_enough_trials_have_to_have_come_far_enough(
    num_long: int, late: int, expected: int | None
) -> None:
    curves = trainings(1, 0.0, num_long, late)
    found = choose_first_rung([curves], MAX_EPOCHS)
    assert (found and found.late) == expected
    assert found is None or found.num_trials == num_long


def test_the_few_that_were_trained_on_tell_of_late_epochs_and_all_of_early_ones() -> None:
    qualities = np.random.default_rng(0).permutation(NUM_TRIALS) / NUM_TRIALS
    best = sorted(qualities)[-8:]
    curves = []
    for q in qualities:
        length = 28 if q in best else 8
        curves.append(training(float(q), 4, float(q) if q in best else -float(q), length))
    found = chosen(curves)
    assert found.agreement[8] == pytest.approx(1.0, abs=0.02)
    assert found.agreement[2] < 0.5  # though the best were ranked alike there
    assert found.epoch == 4


def test_a_trial_that_stopped_itself_has_its_value_from_there_on() -> None:
    curves = [training(q / 10, 1, length=20) | {MAX_EPOCHS: q / 10 + 0.2} for q in range(12)]
    assert chosen(curves).epoch == 2


def test_trials_that_diverged_or_broke_do_not_count() -> None:
    broken: list[Curve] = [{}, {1: 0.5, MAX_EPOCHS: math.nan}, {1: math.nan}]
    assert chosen([*trainings(20, -1.0), *broken]) == chosen(trainings(20, -1.0))
    assert choose_first_rung([broken * MIN_TRIALS], MAX_EPOCHS) is None


def test_studies_are_ranked_each_for_itself() -> None:
    studies = [trainings(1, 0.0), [{e: v - 9 for e, v in c.items()} for c in trainings(20, -1.0)]]
    found = choose_first_rung(studies, MAX_EPOCHS)
    assert found is not None
    assert found.num_trials == 2 * NUM_TRIALS
    assert found.agreement[2] == pytest.approx(0.0, abs=1e-3)
    assert choose_first_rung([], MAX_EPOCHS) is None


@pytest.mark.parametrize("max_epochs", [1, 2, 3, 4, 10])
def test_short_trainings_are_compared_before_their_end_if_at_all(max_epochs: int) -> None:
    for before in (-1.0, 1.0):
        curves = [
            {e: q * (before if e < max_epochs else 1.0) for e in range(1, max_epochs + 1)}
            for q in range(9)
        ]
        for default in (None, max(1, max_epochs // 2)):
            found = choose_first_rung([curves], max_epochs, default)
            assert found is None or found.epoch < max_epochs


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    overrides = ["scheduler={name: freeze_thaw}", f"train.max_epochs={MAX_EPOCHS}"]
    return load_search_config(search_file, overrides)[0]


def with_scheduler(config: SearchConfig, **scheduler: Any) -> SearchConfig:
    return config.model_copy(update={"scheduler": SchedulerConfig(**scheduler)})


def test_it_is_chosen_anew_when_twice_as_many_trials_tell() -> None:
    own, earlier = (
        FirstRung(epoch=8, late=28, num_trials=4, agreement={}, is_of_earlier_studies=is_earlier)
        for is_earlier in (False, True)
    )
    for known, num_needed in [((), 4), ((earlier,), 4), ((own,), 8), ((earlier, own, own), 16)]:
        for num, due in [(num_needed - 1, False), (num_needed, True)]:
            assert is_due(known, trainings(1, 0.0, num, 26), MAX_EPOCHS) == due


def test_what_is_chosen_is_kept_as_plain_values_and_takes_the_place_of_what_is_not_set() -> None:
    found = chosen(trainings(20, -1.0))
    values = [found.model_dump(mode="json")]
    assert read_first_rungs(values) == (found,)
    assert with_first_rung(SchedulerConfig(name="asha"), values).min_epochs == 28
    assert with_first_rung(SchedulerConfig(name="asha"), []).min_epochs is None
    assert with_first_rung(SchedulerConfig(name="asha", min_epochs=3), values).min_epochs == 3


EARLIER = FirstRung(
    epoch=2, late=52, num_trials=30, agreement={2: 0.95, 4: 0.96}, is_of_earlier_studies=True
)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (EARLIER, "epoch 2 of 52: ranks there and at epoch 52 (Spearman 0.95, "
         "30 trials of earlier studies)"),
        (FirstRung(epoch=15, late=28, num_trials=9, agreement={8: 0.12, 15: 0.73}),
         "epoch 15 of 52: ranks there and at epoch 28 (Spearman 0.73, "
         "0.12 at epoch 8, 9 trials)"),
        (FirstRung(epoch=28, late=28, num_trials=9, agreement={8: -0.3, 15: 0.1}),
         "epoch 28 of 52: ranks before disagree with those at epoch 28 (Spearman "
         "-0.30 at epoch 8, 9 trials)"),
        (None, "epoch 8 of 52 (default: 3 of 4 trials needed have come to epoch 26)"),
    ],
)  # fmt: skip
def test_where_trials_are_first_compared_is_told_with_the_reason(
    config: SearchConfig, found: FirstRung | None, text: str
) -> None:
    known = () if found is None else (EARLIER, found)
    assert first_rung_text(config, known, trainings(1, 0.0, 3, 30)) == text


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [
        ({"name": "none"}, None),
        ({"name": "asha"}, "epoch 4 of 52 (default)"),
        ({"name": "asha", "min_epochs": 6}, "epoch 6 of 52 (scheduler.min_epochs)"),
    ],
)
def test_other_schedulers_compare_where_it_is_set_or_nowhere(
    config: SearchConfig, scheduler: dict[str, Any], text: str | None
) -> None:
    assert first_rung_text(with_scheduler(config, **scheduler), ()) == text
