"""Health checks of a search: what a reader should know before trusting its result."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hpo.config.search_space import CategoricalParameter
from hpo.reporting.range_ends import end_to_move
from hpo.reporting.searched import LEAST_TRIALS, Searched
from hpo.reporting.words import cause_of
from hpo.schedulers.first_rung import DISAGREE
from hpo.selection.selection import best_so_far
from hpo.selection.verdict import DEFAULT
from hpo.study.trial import EndReason, TrialStatus

# The limits from which on something is worth a word.
NUM_LEADERS: Final = 5
NO_EFFECT: Final = 0.01  # share of the importance
MANY: Final = 0.2  # share of the trials
LEAST_SHARE: Final = 0.1  # of the budget, from which on its pace tells something
MOST_NAMED: Final = 5


class Grade(StrEnum):
    """How a check came out."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class HealthCard:
    """The outcome of a check.

    Attributes:
        name: What was checked.
        grade: How it came out.
        text: What was found, in one sentence.
        remedy: What to do about it; empty if it passed.
    """

    name: str
    grade: Grade
    text: str
    remedy: str = ""


def health_cards(searched: Searched) -> tuple[HealthCard, ...]:
    """The outcome of every check that there is enough known for, the worst first."""
    checks = (
        _gain, _failures, _divergence, _val_images, _edges, _effects, _num_trials, _budget, _rungs,
        _forecasts, _gpus,
    )  # fmt: skip
    found = [card for check in checks if (card := check(searched)) is not None]
    order = (Grade.FAIL, Grade.WARN, Grade.PASS)
    return tuple(sorted(found, key=lambda card: order.index(card.grade)))


def health_rows(cards: Sequence[HealthCard]) -> dict[str, str]:
    """Rows of the checks that did not pass, and how many passed."""
    rows = {
        f"{card.grade} {card.name}": f"{card.text}; {card.remedy}"
        for card in cards
        if card.grade != Grade.PASS
    }
    num_passed = len(cards) - len(rows)
    return rows | ({"PASS": ", ".join(_names(cards))} if num_passed else {})


def _names(cards: Sequence[HealthCard]) -> Iterator[str]:
    return (card.name for card in cards if card.grade == Grade.PASS)


def _gain(searched: Searched) -> HealthCard | None:
    """Whether the search has found more than the default configuration."""
    verdict = searched.verdict
    if verdict is None or searched.config.study.has_several_objectives:
        return _gain_so_far(searched)
    gain = verdict.gains.get(verdict.winner)
    if gain is None or verdict.winner == DEFAULT or gain.is_within_noise:
        seeds = "retrain.max_share" if verdict.is_cut_by_share else "retrain.seeds"
        remedy = f"widen the space, search longer, or compare on more seeds ({seeds})"
        return HealthCard("gain", Grade.WARN, "no gain over the default is proven", remedy)
    if gain.mean < 0:
        text = "the winner is worse than the default, which misses study.constraints"
        return HealthCard("gain", Grade.FAIL, text, "loosen study.constraints, or search longer")
    return HealthCard("gain", Grade.PASS, "the winner is better than the default")


def _gain_so_far(searched: Searched) -> HealthCard | None:
    best = best_so_far(searched.trials, searched.config)
    default = next((value for value, t in searched.ranked if t.number == DEFAULT), None)
    if best is None or default is None or searched.config.study.has_several_objectives:
        return None
    trial, value = best
    gain = searched.config.study.objective.sign * (value - default)
    margin = searched.margin(value)
    text = f"trial {trial.number} is {gain:.4f} better than the default so far"
    if gain <= 0:
        text = "nothing is better than the default configuration so far"
    if gain > 0 and (margin is None or gain > margin):
        return HealthCard("gain", Grade.PASS, text)
    noise = "" if margin is None else f" (the val images alone make ± {margin:.4f})"
    return HealthCard("gain", Grade.WARN, text + noise, "search longer, or widen the space")


def _failures(searched: Searched) -> HealthCard | None:
    """Whether trials break, and whether for one cause."""
    failed = [t for t in searched.trained if t.state == TrialStatus.FAIL]
    if not searched.trained:
        return None
    if not failed:
        return HealthCard("failures", Grade.PASS, "no trial has broken")
    causes = Counter(cause_of(trial) for trial in failed)
    cause, num = causes.most_common(1)[0]
    text = f"{len(failed)} of {len(searched.trained)} trials have broken, {num} of them by {cause}"
    grade = Grade.FAIL if len(failed) >= MANY * len(searched.trained) else Grade.WARN
    first = next(t.number for t in failed if cause_of(t) == cause)
    return HealthCard("failures", grade, text, f"the study has the traceback of trial {first}")


def _divergence(searched: Searched) -> HealthCard | None:
    """Whether many trials diverge."""
    diverged = [
        t for t in searched.trained if t.attributes.get("end_reason") == EndReason.DIVERGED
    ]
    if len(diverged) < MANY * max(len(searched.trained), LEAST_TRIALS):
        return None
    text = f"{len(diverged)} of {len(searched.trained)} trials have diverged"
    remedy = "lower space.optimizer.learning_rate.high, or set optimizer.max_grad_norm"
    return HealthCard("divergence", Grade.WARN, text, remedy)


def _val_images(searched: Searched) -> HealthCard | None:
    """Whether the val images can tell the leaders apart."""
    leaders = searched.ranked[:NUM_LEADERS]
    verdict = searched.verdict
    gain = None if verdict is None else verdict.gains.get(verdict.winner)
    is_settled = gain is not None and not gain.is_within_noise
    if len(leaders) < NUM_LEADERS or is_settled:
        return None
    best, last = leaders[0][0], leaders[-1][0]
    margin, gap = searched.margin(best), abs(best - last)
    if margin is None:
        return None
    text = (
        f"the best {NUM_LEADERS} trials lie within {gap:.4f}, and {searched.num_val_images} val "
        f"images make ± {margin:.4f}"
    )
    if gap > margin:
        return HealthCard("val images", Grade.PASS, text)
    remedy = "take the finalists' comparison for the result (retrain.top_k), or more val images"
    return HealthCard("val images", Grade.WARN, text, remedy)


def _edges(searched: Searched) -> HealthCard | None:
    """Whether the best values lie at the end of a range."""
    leaders = [trial for _, trial in searched.ranked[:NUM_LEADERS]]
    if len(searched.ranked) < LEAST_TRIALS:
        return None
    found = [
        (path, end)
        for path, parameter in searched.config.space.items()
        if not isinstance(parameter, CategoricalParameter)
        and (end := end_to_move(parameter, [t.params[path] for t in leaders if path in t.params]))
    ]
    if not found:
        return HealthCard("ranges", Grade.PASS, "no best value lies at the end of its range")
    text = ", ".join(f"{path} at its {end[0]}" for path, end in found[:MOST_NAMED])
    settings = " ".join(f"--set space.{path}.{name}={to:g}" for path, (name, to) in found)
    return HealthCard(
        "ranges", Grade.WARN, f"the best values lie at the end of their ranges: {text}",
        f"widen them, and resume: {settings}",
    )  # fmt: skip


def _effects(searched: Searched) -> HealthCard | None:
    """Whether every parameter has an effect."""
    if not searched.importances:
        return None
    without = [path for path, share in searched.importances.items() if share < NO_EFFECT]
    if not without:
        return HealthCard("parameters", Grade.PASS, "every parameter has an effect")
    text = f"of almost no effect: {', '.join(without[:MOST_NAMED])}"
    return HealthCard(
        "parameters", Grade.WARN, text, "fix them: a smaller space takes fewer trials"
    )


def _num_trials(searched: Searched) -> HealthCard | None:
    """Whether the search is long enough for its space."""
    num_parameters = len(searched.config.space)
    enough = searched.num_wanted
    is_over = searched.verdict is not None and not searched.is_limited
    num = len(searched.trained) if is_over else searched.config.study.num_trials
    text = (
        f"{num} trials {'were made' if is_over else 'are planned'} for {num_parameters} parameters"
    )
    if num >= enough:
        return HealthCard("length", Grade.PASS, text)
    remedy = f"make it {enough} or more (study.num_trials, budget), or search fewer parameters"
    return HealthCard("length", Grade.WARN, text, remedy)


def _budget(searched: Searched) -> HealthCard | None:
    """Whether the budget pays for as many trials as the space wants."""
    num, share, planned = len(searched.trained), searched.budget_share, searched.config.study
    is_early = share < LEAST_SHARE or not num
    if not searched.is_limited and (is_early or searched.verdict is not None):
        return None
    expected = num if searched.is_limited else min(round(num / share), planned.num_trials)
    text = f"the budget pays for about {expected} trials at the pace so far"
    if searched.is_limited:
        text = f"the budget has ended the search after {num} trials"
        if num >= planned.num_trials:
            text = f"the budget has paid for all {num} trials"
    text += f"; {len(searched.config.space)} parameters want {searched.num_wanted}"
    if expected >= min(searched.num_wanted, planned.num_trials):
        return HealthCard("budget", Grade.PASS, text)
    remedy = "raise the budget, and resume; or search fewer parameters"
    return HealthCard("budget", Grade.WARN, text, remedy)


def _rungs(searched: Searched) -> HealthCard | None:
    """Whether the first comparison tells good trials from bad ones."""
    rung = searched.first_rung
    agreement = None if rung is None else rung.agreement.get(rung.epoch)
    if rung is None or agreement is None:
        return None
    text = (
        f"the ranks at epoch {rung.epoch}, where trials are first compared, agree with those at "
        f"epoch {rung.late} by {agreement:.2f}"
    )
    if agreement >= DISAGREE:
        return HealthCard("first comparison", Grade.PASS, text)
    remedy = "set scheduler.min_epochs to a later epoch"
    return HealthCard("first comparison", Grade.WARN, text, remedy)


def _forecasts(searched: Searched) -> HealthCard | None:
    """Whether what came lay inside the surrogate's intervals."""
    found = searched.calibration
    if found is None:
        return None
    text = (
        f"{found.num_inside} of {found.num} values at rungs lay inside the surrogate's "
        f"{found.share:.0%} intervals"
    )
    if not found.is_too_sure:
        return HealthCard("forecasts", Grade.PASS, text)
    remedy = (
        "compare more finalists (retrain.top_k), or try scheduler.name: asha_promotion, which "
        "needs no forecasts"
    )
    return HealthCard("forecasts", Grade.WARN, f"{text}: it is too sure", remedy)


def _gpus(searched: Searched) -> HealthCard | None:
    """Whether GPUs wait."""
    findings = [
        finding
        for trial in searched.trained
        for finding in trial.attributes.get("diagnosis", ())
        if finding["tag"].startswith("GPU under-used")
    ]
    if len(findings) < MANY * max(len(searched.trained), 1):
        return None
    text = f"the GPU is under-used in {len(findings)} of {len(searched.trained)} trials"
    return HealthCard("GPU", Grade.WARN, text, findings[0]["remedy"])
