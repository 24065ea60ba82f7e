import math

import numpy as np
import pytest

from hpo.config.search_space import CategoricalParameter, FloatParameter, Params, Space
from hpo.schedulers.base import Choice, Decision, Resume, Start, Wait
from hpo.schedulers.first_rung import FirstRung
from hpo.schedulers.freeze_thaw import FreezeThaw

SPACE: Space = {
    "rate": FloatParameter(type="float", low=1e-4, high=1e-1, log=True),
    "drop": FloatParameter(type="float", low=0.0, high=0.5),
    "model": CategoricalParameter(type="categorical", choices=("small", "large")),
}
DEFAULT: Params = {"rate": 1e-3, "drop": 0.1, "model": "small"}
MAX_EPOCHS = 26


def accuracy(params: Params, epoch: int) -> float:
    """Accuracy; best at rate 1e-2 without dropout for the large model, whose gain comes late."""
    rate = math.log10(float(params["rate"] or 0)) + 2
    final = 0.9 - 0.1 * rate**2 - 0.2 * float(params["drop"] or 0)
    is_large = params["model"] == "large"
    final += 0.03 if is_large else 0.0
    return final * (1 - math.exp(-epoch / (5 if is_large else 4)))


def next_of(thaw: FreezeThaw, *, may_start: bool = True) -> Choice:
    """The scheduler's choice among all paused trials and a new one."""
    return thaw.next(thaw.paused_trials(), may_start=may_start)


class Search:
    """A simulated search with one slot, which runs the scheduler's choices."""

    def __init__(
        self,
        seed: int = 0,
        sign: float = 1.0,
        max_epochs: int = MAX_EPOCHS,
        space: Space = SPACE,
    ) -> None:
        self.sign, self.max_epochs = sign, max_epochs
        self.thaw = FreezeThaw(space, max_epochs, maximise=sign > 0, seed=seed)
        self.params: dict[int, Params] = {}
        self.epochs: dict[int, int] = {}
        self.history: list[tuple[int, int]] = []

    def start(self, params: Params) -> int:
        number = len(self.params)
        self.params[number], self.epochs[number] = params, 0
        self.thaw.started(number, params)
        return number

    def train(self, number: int) -> None:
        """Trains a trial until the scheduler pauses it, or to its end."""
        while True:
            self.epochs[number] += 1
            epoch = self.epochs[number]
            value = self.sign * accuracy(self.params[number], epoch)
            self.thaw.reported(number, {epoch: value})
            if epoch == self.max_epochs:
                self.thaw.completed(number, value)
                break
            if self.thaw.on_epoch(number) == Decision.PAUSE:
                self.thaw.paused(number)
                break
        self.history.append((number, self.epochs[number]))

    def decide(self) -> Choice:
        choice = next_of(self.thaw)
        if isinstance(choice, Resume):
            self.thaw.resumed(choice.number)
            self.train(choice.number)
        else:
            assert isinstance(choice, Start)
            assert choice.params is not None
            self.train(self.start(choice.params))
        return choice

    def run(self, num_decisions: int) -> None:
        self.train(self.start(DEFAULT))
        for _ in range(num_decisions):
            self.decide()


def test_the_default_runs_to_its_end_and_others_compete() -> None:
    search = Search()
    search.run(3)
    assert search.history[0] == (0, MAX_EPOCHS)
    assert [epoch for _, epoch in search.history[1:]] == [4, 4, 4]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_finds_what_is_best_with_few_trainings(sign: float) -> None:
    search = Search(sign=sign)
    search.run(40)
    best = search.params[search.thaw.ranking()[0]]
    assert best["model"] == "large"
    assert accuracy(best, MAX_EPOCHS) > 0.91  # at most 0.925 is possible
    assert sum(search.epochs.values()) < 13 * MAX_EPOCHS


def test_good_trials_are_trained_longer_than_bad_ones() -> None:
    of_good = of_bad = 0
    for seed in range(4):
        search = Search(seed)
        search.run(25)
        finals = {n: accuracy(params, MAX_EPOCHS) for n, params in search.params.items() if n}
        ordered = [search.epochs[n] for n in sorted(finals, key=lambda n: finals[n])]
        third = len(ordered) // 3
        of_good, of_bad = of_good + sum(ordered[-third:]), of_bad + sum(ordered[:third])
    assert of_good > 1.3 * of_bad


def test_the_same_study_gives_the_same_choice() -> None:
    first, second = Search(), Search()
    for search in (first, second):
        search.run(15)
    assert first.history == second.history
    assert first.params == second.params
    other = Search(seed=1)
    other.run(15)
    assert other.params != first.params


def test_no_trial_is_begun_where_none_may_be() -> None:
    search = Search()
    search.run(8)
    choice = next_of(search.thaw, may_start=False)
    assert isinstance(choice, Resume)
    assert choice.number in search.thaw.paused_trials()
    for number in search.thaw.paused_trials():
        search.thaw.pruned(number)
    assert next_of(search.thaw, may_start=False) == Wait()


STEPS: Space = SPACE | {
    "rate": CategoricalParameter(type="categorical", choices=(1e-3, 1e-2)),
    "drop": FloatParameter(type="float", low=0.0, high=0.5, step=0.1),
}


@pytest.mark.parametrize("seed", range(3))
def test_no_configuration_is_tried_twice_and_the_search_ends_with_the_last_one(seed: int) -> None:
    search = Search(seed, space=STEPS)
    search.train(search.start(DEFAULT))
    assert not search.thaw.is_exhausted
    while next_of(search.thaw) != Wait():
        assert len(search.params) <= 2 * 6 * 2
        search.decide()
    assert search.thaw.is_exhausted
    assert len(set(map(repr, search.params.values()))) == len(search.params) == 2 * 6 * 2
    assert search.thaw.expected_gains(()) == {}
    assert search.thaw.propose() in search.params.values()  # if a caller asks nevertheless


@pytest.mark.parametrize("seed", range(3))
def test_gains_count_by_the_second_where_costs_are_weighed(seed: int) -> None:
    rates = []
    for slope in (-3.0, 3.0):  # small rates are expensive, then cheap
        search = Search(seed)
        search.run(12)
        costs = {n: float(p["rate"] or 0) ** slope for n, p in search.params.items()}
        search.thaw.weigh_costs(costs)
        rates.append(float(search.thaw.propose()["rate"] or 0))
    assert rates[0] > rates[1]


def test_costs_that_are_all_alike_change_no_choice() -> None:
    plain, weighed = Search(), Search()
    for _ in range(2):
        for search in (plain, weighed):
            search.run(6) if not search.params else search.decide()
        weighed.thaw.weigh_costs(dict.fromkeys(weighed.params, 5.0))
    assert plain.decide() == weighed.decide()


def test_running_trials_are_not_tried_again() -> None:
    search = Search()
    search.run(8)
    proposed: list[Params] = []
    for _ in range(6):
        params = search.thaw.propose()
        proposed.append(params)
        search.thaw.started(100 + len(proposed), params)
    rates = [math.log10(float(params["rate"] or 0)) for params in proposed]
    assert max(rates) - min(rates) > 0.5


@pytest.mark.parametrize(
    ("max_epochs", "seed", "num_decisions", "params"),
    [
        (MAX_EPOCHS, 2, 12, {"rate": 2e-2, "drop": 0.2, "model": "small"}),
        (8, 0, 8, {"rate": 4e-3, "drop": 0.3, "model": "large"}),
    ],
)
def test_what_runs_may_turn_out_better_than_expected(
    max_epochs: int, seed: int, num_decisions: int, params: Params
) -> None:
    search = Search(seed, max_epochs=max_epochs)
    search.run(num_decisions)
    paused = search.thaw.paused_trials()

    def gain_of_paused() -> float:
        gains = search.thaw.expected_gains(paused)
        return sum(gain for number, gain in gains.items() if number is not None)

    before = gain_of_paused()
    search.thaw.started(100, params)
    # The new trial's predicted end is below the incumbent, which alone would change nothing.
    assert gain_of_paused() < 0.98 * before


def test_half_way_to_the_first_level_only_those_compete_that_are_expected_to_end_low() -> None:
    search = Search()
    search.run(12)
    low, high = DEFAULT | {"rate": 1e-4}, {"rate": 1e-2, "drop": 0.0, "model": "large"}
    for number, params in enumerate((low, high), start=100):
        search.thaw.started(number, params)
        assert search.thaw.on_epoch(number) == Decision.CONTINUE
        search.thaw.reported(number, {e: accuracy(params, e) for e in (1, 2)})
        assert search.thaw.is_at_rung(number)
    assert [search.thaw.on_epoch(number) for number in (100, 101)] == [
        Decision.PAUSE, Decision.CONTINUE,
    ]  # fmt: skip


@pytest.mark.parametrize(("epoch", "counts"), [(1, False), (2, True), (3, False), (4, True)])
def test_a_curve_counts_at_its_levels_and_half_way_to_the_first(epoch: int, counts: bool) -> None:
    surveys = []
    for change in (0.0, 0.1):
        search = Search()
        search.run(6)
        search.thaw.reported(3, {epoch: accuracy(search.params[3], epoch) + change})
        surveys.append([value for _, value in search.thaw.survey(16)])
    assert (surveys[0] != pytest.approx(surveys[1], rel=1e-6)) == counts


def test_where_early_ranks_mislead_no_trial_competes_half_way() -> None:
    search = Search()
    search.run(12)
    search.thaw.set_first_rungs([first_rung(14, from_trial=100)])
    params = DEFAULT | {"rate": 1e-4}
    search.thaw.started(100, params)
    for epoch in range(1, 14):
        search.thaw.reported(100, {epoch: accuracy(params, epoch)})
        assert not search.thaw.is_at_rung(100)


def test_a_diverged_trial_counts_as_the_worst_and_a_failed_one_not_at_all() -> None:
    search = Search()
    search.run(8)
    before = search.thaw.ranking()
    diverged, failed = search.start(DEFAULT), search.start(DEFAULT)
    search.thaw.reported(diverged, {1: math.nan})
    search.thaw.pruned(diverged, diverged=True)
    search.thaw.failed(failed)
    assert set(search.thaw.ranking()) == {*before, diverged}
    assert next_of(search.thaw) != Wait()


def test_the_last_trial_does_not_compete_any_more() -> None:
    search = Search()
    search.run(8)
    number = search.thaw.paused_trials()[0]
    search.thaw.last_one = number
    search.thaw.resumed(number)
    search.train(number)
    assert search.epochs[number] == MAX_EPOCHS


def test_the_least_promising_of_the_paused_is_a_bad_one() -> None:
    places = []
    for seed in range(4):
        search = Search(seed)
        search.run(20)
        next_of(search.thaw)
        paused, worst = search.thaw.paused_trials(), search.thaw.least_promising()
        assert worst in paused
        finals = {n: accuracy(search.params[n], MAX_EPOCHS) for n in paused}
        places.append(sorted(finals, key=lambda n: finals[n]).index(worst) / len(finals))
    assert sum(places) / 4 < 0.4  # random trials would have 0.5


def test_what_is_asked_before_a_choice_does_not_change_it() -> None:
    plain, asked = Search(), Search()
    for search in (plain, asked):
        search.run(10)
    state = asked.thaw.model_state
    for _ in range(2):
        asked.thaw.expected_gains(asked.thaw.paused_trials())
        asked.thaw.ranking()
        asked.thaw.may_be_last()
        asked.thaw.survey(16)
    assert asked.thaw.model_state == state
    assert next_of(asked.thaw) == next_of(plain.thaw)


def test_a_choice_asked_for_again_is_the_same() -> None:
    search = Search()
    search.run(10)
    choices = [next_of(search.thaw) for _ in range(3)]
    resumed = Search()
    resumed.run(10)
    resumed.thaw.model_state = search.thaw.model_state  # killed after choosing
    assert [*choices, next_of(resumed.thaw)] == choices[:1] * 4


def test_one_epoch_is_enough_for_a_trial() -> None:
    search = Search(max_epochs=1)
    search.run(10)
    assert search.history == [(number, 1) for number in range(11)]


def test_a_trial_that_was_given_up_is_not_to_be_the_last_one() -> None:
    search = Search()
    search.run(20)
    number = next(n for n in search.thaw.may_be_last() if n in search.thaw.paused_trials())
    before = search.thaw.ranking()
    search.thaw.pruned(number)
    assert number not in search.thaw.may_be_last()
    assert set(search.thaw.ranking()) == set(before)  # the pruned trial stays ranked


def test_what_is_not_allowed_is_not_proposed() -> None:
    thaw = FreezeThaw(
        SPACE, MAX_EPOCHS, maximise=True, seed=0, is_allowed=lambda p: p["model"] == "small"
    )
    thaw.started(0, DEFAULT | {"model": "large"})
    thaw.reported(0, {1: 0.99})
    thaw.paused(0)
    proposed = []
    for number in range(1, 12):
        params = thaw.propose()
        proposed.append(tuple(params.values()))
        assert params["model"] == "small"
        thaw.started(number, params)
        thaw.reported(number, {1: accuracy(params, 1)})
        thaw.paused(number)
    assert len(set(proposed)) == len(proposed)
    assert {params["model"] for params, _ in thaw.survey(64)} == {"small"}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_survey_tells_where_configurations_would_end(sign: float) -> None:
    search = Search(sign=sign)
    search.run(40)
    survey = search.thaw.survey(256)
    assert len({tuple(params.values()) for params, _ in survey}) == 256
    errors = [sign * value - accuracy(params, MAX_EPOCHS) for params, value in survey]
    assert abs(float(np.median(errors))) < 0.02


def test_where_anything_is_allowed_the_same_is_proposed_as_without_asking() -> None:
    proposed = []
    for is_allowed in (None, lambda _: True):
        thaw = FreezeThaw(SPACE, MAX_EPOCHS, maximise=True, seed=0, is_allowed=is_allowed)
        thaw.started(0, DEFAULT)
        thaw.started(1, thaw.propose())
        proposed.append(thaw.propose())
    assert proposed[0] == proposed[1]


def test_what_may_be_gained_falls_as_more_is_known() -> None:
    search = Search()
    search.train(search.start(DEFAULT))
    assert search.thaw.expected_gains(()) == {}  # too little is known
    gains = []
    for _ in range(3):
        for _ in range(12):
            search.decide()
        paused = search.thaw.paused_trials()
        found = search.thaw.expected_gains(paused)
        assert list(found) == [*paused, None]
        assert min(found.values()) >= 0
        gains.append(max(found.values()))
    assert gains[0] > 2 * gains[2]
    best = max(accuracy(params, MAX_EPOCHS) for params in search.params.values())
    assert gains[0] < 0.1
    assert gains[2] > 0.1 * (0.925 - best)


def test_nothing_is_to_be_gained_from_what_runs_until_the_default_has_ended() -> None:
    search = Search()
    search.start(DEFAULT)
    search.thaw.reported(0, {1: 0.1})
    for _ in range(8):
        search.decide()
    assert search.thaw.expected_gains(search.thaw.paused_trials()) == {}


def first_rung(epoch: int, from_trial: int) -> FirstRung:
    return FirstRung(epoch=epoch, late=26, num_trials=9, agreement={}, from_trial=from_trial)


def test_trials_keep_the_levels_that_they_began_with() -> None:
    search = Search()
    search.run(7)
    assert search.thaw.most_epochs_to_end == MAX_EPOCHS - 4
    search.thaw.set_first_rungs([first_rung(14, from_trial=len(search.params))])
    assert search.thaw.first_rung == 14
    assert search.thaw.most_epochs_to_end == MAX_EPOCHS - 4  # as for the paused trials
    paused = search.thaw.paused_trials()[0]
    assert search.thaw.next_stop(paused, 4) == 7
    new = search.start(DEFAULT)
    assert search.thaw.next_stop(new, 0) == 14
    search.train(new)
    assert search.epochs[new] == 14
    search.thaw.set_first_rungs([first_rung(1, from_trial=new + 1)])
    lower = search.start(DEFAULT)
    search.train(lower)
    assert (search.epochs[lower], search.thaw.next_stop(lower, 1)) == (1, 2)
    assert search.thaw.most_epochs_to_end == MAX_EPOCHS - 1


@pytest.mark.parametrize("has_late", [True, False])
def test_what_comes_before_a_raised_first_level_does_not_mislead(has_late: bool) -> None:
    rankings = []
    for sign in (1.0, -1.0):  # sign of the early values
        thaw = FreezeThaw(SPACE, MAX_EPOCHS, maximise=True, seed=0)
        for number, rate in enumerate(np.geomspace(1e-4, 1e-1, 24)):
            params = DEFAULT | {"rate": float(rate)}
            thaw.started(number, params)
            thaw.reported(number, {4: sign * accuracy(params, 4)})
            if has_late and number % 3 == 0:
                thaw.reported(number, {14: accuracy(params, 14)})
            thaw.paused(number)
        thaw.set_first_rungs([first_rung(14, from_trial=0)])
        rankings.append(thaw.ranking())
        assert next_of(thaw) != Wait()
    assert (rankings[0] == rankings[1]) == has_late  # without late values, early ones count


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_forecasts_begin_where_curves_end_and_tell_good_trials_from_bad_ones(sign: float) -> None:
    search = Search(sign=sign)
    search.run(30)
    middles, ends = [], []
    for number in search.thaw.paused_trials():
        expected, epoch = search.thaw.forecast(number), search.epochs[number]
        assert expected is not None
        assert expected.epochs == (*range(epoch, MAX_EPOCHS + 1),)
        assert expected.middle[0] == pytest.approx(
            sign * accuracy(search.params[number], epoch), abs=0.02
        )
        bounds = zip(expected.low, expected.middle, expected.high, strict=True)
        assert all(low < middle < high for low, middle, high in bounds)
        middles.append(expected.middle[-1])
        ends.append(sign * accuracy(search.params[number], MAX_EPOCHS))
    assert np.corrcoef(middles, ends)[0, 1] > 0.8


def test_there_is_no_forecast_before_the_surrogate_knows_enough() -> None:
    search = Search()
    search.run(2)
    assert search.thaw.forecast(1) is None
    search.run(20)
    assert search.thaw.forecast(0) is None  # it is at its end


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_forecasts_of_the_past_do_not_know_what_came(sign: float) -> None:
    search = Search(sign=sign)
    search.run(30)
    found = search.thaw.forecasts_of_the_past(10)
    assert len(found) == 10
    for value, expected in found:
        known = (sign * accuracy(params, expected.epochs[0]) for params in search.params.values())
        assert value in known
    assert all(expected.high[0] - expected.low[0] > 1e-3 for _, expected in found)
    assert sum(one.low[0] <= value <= one.high[0] for value, one in found) >= 5


def test_forecasts_of_the_past_end_where_nothing_that_tells_was_known() -> None:
    thaw = FreezeThaw(SPACE, MAX_EPOCHS, maximise=True, seed=0)
    for number in range(12):
        params = DEFAULT | {"drop": number / 24}
        thaw.started(number, params)
        reached = 14 if number == 11 else 4
        thaw.reported(number, {e: accuracy(params, e) for e in range(1, reached + 1)})
        thaw.paused(number)
    thaw.failed(0)
    thaw.set_first_rungs([first_rung(14, from_trial=11)])
    assert thaw.forecasts_of_the_past(10) == []
