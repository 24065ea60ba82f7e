"""How members of soups and ensembles are chosen by val, and judged on other images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hpo.selection.greedy import Choice, Members, choose_members, halves
from sgformer.training.outcomes import Outcomes

NUM, NUM_CLASSES = 600, 5
LABELS = torch.arange(NUM) % NUM_CLASSES
OutcomesOf = Callable[[Members], Outcomes]


def made_logits(sureness: list[float], seed: int = 0) -> list[torch.Tensor]:
    """Logits of independent models, each right more often the surer it is."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for sure in sureness:
        logits = torch.randn(NUM, NUM_CLASSES, generator=generator)
        logits[torch.arange(NUM), LABELS] += sure
        found.append(logits)
    return found


def mean_of(logits: list[torch.Tensor], asked: list[Members] | None = None) -> OutcomesOf:
    """Evaluates the mean probabilities of members; notes what it was asked for."""

    def outcomes(members: Members) -> Outcomes:
        if asked is not None:
            asked.append(members)
        mean = torch.stack([logits[i].softmax(1) for i in members]).mean(0)
        return Outcomes.of([(mean.log(), LABELS)])

    return outcomes


def choose(logits: list[torch.Tensor], most: int = 9, of: OutcomesOf | None = None) -> Choice:
    told = choose_members(len(logits), of or mean_of(logits), "val_top1", most)
    while True:
        try:
            next(told)
        except StopIteration as end:
            return end.value


def test_an_ensemble_of_independent_models_is_worth_it() -> None:
    choice = choose(made_logits([1.0, 1.0, 1.0, 1.0]))
    assert choice.members[0] == 0
    assert len(choice.members) > 2
    assert choice.is_worth_it
    assert choice.together > choice.alone
    assert choice.gain.low > 0


def test_models_that_lower_val_do_not_join_a_soup() -> None:
    choice = choose(made_logits([3.0, -2.0, -3.0]))
    assert choice.members == (0,)
    assert not choice.is_worth_it
    assert choice.gain.mean == 0


def test_the_best_candidate_is_asked_first_and_the_winner_stays_a_member() -> None:
    choice = choose(made_logits([0.5, 0.6, 2.5]), most=2)
    assert choice.members == (0, 2)


def test_an_ensemble_has_at_most_so_many_members() -> None:
    assert len(choose(made_logits([1.0] * 6), most=3).members) == 3


def test_a_gain_is_judged_on_images_that_chose_no_member() -> None:
    """Copies of one model with other noise look better by choice, and are not."""
    worth, optimistic = 0, 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(1000 + seed)
        base = made_logits([1.0], seed)[0]
        noisy = [base + 1.5 * torch.randn(NUM, NUM_CLASSES, generator=generator) for _ in range(9)]
        # Each "member" replaces the answer instead of joining it: nothing is averaged out.
        last = lambda members, noisy=noisy: Outcomes.of([(noisy[members[-1]], LABELS)])  # noqa: E731
        choice = choose(noisy, of=last)
        worth += choice.is_worth_it
        optimistic += choice.together > choice.alone
    assert optimistic >= 12
    assert worth <= 2


def test_halves_have_half_of_each_class() -> None:
    labels = np.array([0] * 7 + [1] * 4 + [2])
    first, second = halves(labels)
    assert sorted([*first, *second]) == list(range(12))
    counts = [np.bincount(labels[half], minlength=3) for half in (first, second)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


@pytest.mark.parametrize("num", [2, 4])
def test_it_yields_as_it_evaluates(num: int) -> None:
    asked: list[Members] = []
    logits = made_logits([1.0] * num)
    steps = list(choose_members(num, mean_of(logits, asked), "val_loss", 9))
    assert len(steps) == 4 * (num - 1)
    assert set(asked) >= {(i,) for i in range(num)}
