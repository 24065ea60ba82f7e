"""What became of `retrain.deliver: soup` or `ensemble`: numbers, as metrics.json keeps them."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from hpo.config.sections import Deliver
from hpo.model_files import ModelFiles
from hpo.selection.greedy import Choice
from sgformer.validation import FrozenConfig


class MemberTraining(FrozenConfig):
    """A training whose model is a member.

    Attributes:
        trial: The number of the trial whose configuration was trained.
        seed: The fresh seed.
    """

    trial: int
    seed: int


class Combination(FrozenConfig):
    """A soup or an ensemble that was asked for, delivered or not.

    Attributes:
        asked: `retrain.deliver`.
        delivered: What best/ has.
        members: The members chosen by all of val, the winner's model first.
        num_candidates: How many trained models there were to choose from, the winner's included.
        num_missing: How many more had been trained, whose weights are not there any more.
        metric: What val judges by.
        alone: The winner's model on val.
        together: The members together on val, which has chosen them.
        gain, low, high: The members' metric less the winner's model's, and the ends of its 95 %
            interval, on val images that did not choose the members; positive is better. None:
            nothing was to be combined.
        starts_alike: Whether all candidates start from the same trained weights.
    """

    asked: Literal["soup", "ensemble"]
    delivered: Deliver
    members: tuple[MemberTraining, ...]
    num_candidates: int
    num_missing: int
    metric: str
    alone: float | None = None
    together: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    starts_alike: bool = True

    def with_choice(self, choice: Choice, candidates: Sequence[MemberTraining]) -> "Combination":
        """The combination, with the numbers of a choice among the candidates."""
        update: dict[str, Any] = {
            "delivered": self.asked if choice.is_worth_it else "winner",
            "members": tuple(candidates[i] for i in choice.members),
            "alone": choice.alone,
            "together": choice.together,
            "gain": choice.gain.mean,
            "low": choice.gain.low,
            "high": choice.gain.high,
        }
        return self.model_copy(update=update)

    @property
    def is_delivered(self) -> bool:
        """Whether best/ has the soup or the ensemble."""
        return self.delivered != "winner"

    def members_text(self) -> str:
        """The members as text, such as 'trial 3 on seeds 1 and 2, trial 0 on seed 1'."""
        seeds: dict[int, list[int]] = defaultdict(list)
        for member in self.members:
            seeds[member.trial].append(member.seed)
        return ", ".join(
            f"trial {trial} on seed{'s' * (len(of) > 1)} {_and(of)}" for trial, of in seeds.items()
        )

    def gain_text(self) -> str:
        """The gain with its interval as text; empty: it is not known."""
        if self.gain is None or self.low is None or self.high is None:
            return ""
        return f"{self.gain:+.4f} ({self.low:+.4f} to {self.high:+.4f}) {self.metric}"

    def text(self) -> str:
        """What is delivered, and why, as a sentence or two without the last full stop."""
        if self.is_delivered:
            return (
                f"{_a(self.asked)} of {len(self.members)} models: {self.members_text()}; "
                f"{self.gain_text()} over the winner's model alone, on val images that did not "
                "choose its members"
            )
        return f"the winner's model alone, not {_a(self.asked)}: {self._why_not()}"

    def _why_not(self) -> str:
        if self.num_candidates < 2:
            missing = (
                f", as the weights of {self.num_missing} are gone" if self.num_missing else ""
            )
            alike = " of its architecture" if self.asked == "soup" else ""
            return f"no other finalist's training{alike} is there to combine it with{missing}"
        if len(self.members) < 2:
            why = f"none of {self.num_candidates - 1} other models keeps val from falling"
        else:
            why = (
                f"{len(self.members)} models ({self.members_text()}) gain {self.gain_text()}, "
                "which is not more than noise"
            )
        if self.asked == "soup" and not self.starts_alike:
            why += (
                "; the trainings start from different random weights, whose mean is seldom a good "
                "model (start from trained weights: model.pretrained, model.checkpoint)"
            )
        return why


def read_combination(files: ModelFiles) -> Combination | None:
    """What became of the soup or ensemble that was asked for; None: none was."""
    values = _metrics(files).get("combination")
    try:
        return None if values is None else Combination.model_validate(values)
    except ValidationError:  # of another version
        return None


def latency_text(files: ModelFiles) -> str:
    """The median latencies that were measured by turns, as text; empty: none were."""
    found: Mapping[str, Mapping[str, Any]] = _metrics(files).get("latency_ms") or {}
    return "; ".join(
        f"{name} {of['1']['p50']:.3g} ms at batch 1, {of['8']['p50']:.3g} ms at batch 8"
        for name, of in found.items()
    )


def _metrics(files: ModelFiles) -> dict[str, Any]:
    if not files.metrics.is_file():
        return {}
    values: dict[str, Any] = json.loads(files.metrics.read_text("utf-8"))
    return values


def _a(what: str) -> str:
    return f"an {what}" if what == "ensemble" else f"a {what}"


def _and(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last
