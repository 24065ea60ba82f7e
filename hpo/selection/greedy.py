"""Chooses members of a soup or an ensemble by val, and judges the choice on other images."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgformer.config import Metric
from sgformer.training.outcomes import IntArray, Outcomes, PairedGain, paired_gain

Members = tuple[int, ...]  # positions among the candidates, the winner's 0 first
OutcomesOf = Callable[[Members], Outcomes]  # of a combination, on all val images


@dataclass(frozen=True)
class Choice:
    """The members of a combination, and what it gains over the first of them alone.

    Attributes:
        members: Those chosen by all val images.
        gain: The gain on images that did not choose the members; positive is better.
        alone: The first member's metric on val.
        together: The combination's metric on val, which is too good: val chose the members.
    """

    members: Members
    gain: PairedGain
    alone: float
    together: float

    @property
    def is_worth_it(self) -> bool:
        """Whether val tells the gain from chance."""
        return len(self.members) > 1 and self.gain.low > 0


def choose_members(
    num_candidates: int, outcomes_of: OutcomesOf, metric: Metric, most: int
) -> Generator[None, None, Choice]:
    """Chooses the members of a combination; yields after each evaluation that it may have made.

    The members are chosen by each half of val and judged on the other one, which gives the gain;
    those that are delivered are chosen by all of val.

    Args:
        num_candidates: The number of models; the first is the winner's, always a member.
        outcomes_of: Evaluates a combination on all val images; asked again, it should know.
        metric: The metric to choose and judge by.
        most: The most members.
    """
    alone = outcomes_of((0,))
    for candidate in range(1, num_candidates):
        outcomes_of((candidate,))
        yield
    judged = alone
    first, second = halves(alone.labels)
    for chosen_by, judged_on in ((first, second), (second, first)):
        found = yield from _greedy(num_candidates, outcomes_of, metric, most, chosen_by)
        judged = _with_rows(judged, judged_on, outcomes_of(found))
    everything = np.arange(len(alone.labels))
    members = yield from _greedy(num_candidates, outcomes_of, metric, most, everything)
    together = outcomes_of(members).value(metric)
    gain = paired_gain(alone, judged, metric)
    return Choice(members, gain, alone.value(metric), together)


def halves(labels: IntArray) -> tuple[IntArray, IntArray]:
    """The positions of two halves of the images, with half of each class in each."""
    order = np.argsort(labels, kind="stable")
    return np.sort(order[0::2]), np.sort(order[1::2])


def _greedy(
    num_candidates: int, outcomes_of: OutcomesOf, metric: Metric, most: int, rows: IntArray
) -> Generator[None, None, Members]:
    """The members by some images: from the best candidate on, whoever does not lower the score.

    Source: Wortsman et al., arXiv:2203.05482, algorithm 1, but with the winner's model first.
    """

    def score(members: Members) -> tuple[float, float]:
        return outcomes_of(members).part(rows).score(metric)

    order: Sequence[int] = sorted(
        range(1, num_candidates), key=lambda candidate: score((candidate,)), reverse=True
    )
    members: Members = (0,)
    best = score(members)
    for candidate in order:
        if len(members) == most:
            break
        value = score((*members, candidate))
        yield
        if value >= best:
            members, best = (*members, candidate), value
    return members


def _with_rows(outcomes: Outcomes, rows: IntArray, other: Outcomes) -> Outcomes:
    """The outcomes, with another model's for some images."""
    mixed = {}
    for name in ("predicted", "in_top5", "losses"):
        values = getattr(outcomes, name).copy()
        values[rows] = getattr(other, name)[rows]
        mixed[name] = values
    return replace(outcomes, **mixed)
