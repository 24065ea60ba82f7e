"""Invariants of every search under any faults, checked against what was really trained."""

import itertools
import math
from pathlib import Path

import pytest
from random_driver import RandomSearch
from random_searches import Plan
from random_trials import is_noted_as_over

from hpo.config.objectives import METRICS
from hpo.config.schema import PAUSING
from hpo.schedulers.asha import rung_epochs
from hpo.study.trial import TrialSummary, num_counted


class BrokenInvariantError(AssertionError):
    """A search has broken one of its invariants."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.search: RandomSearch | None = None


def holds(is_so: object, invariant: str, detail: object = "") -> None:
    if not is_so:
        raise BrokenInvariantError(invariant, str(detail))


def keeps_to_its_limits(search: RandomSearch) -> None:
    """Checks that the search stays within its budget.

    Begun epochs may exceed a limit by one epoch a slot, and by epochs that kills have hidden.
    """
    config, over = search.config, search.num_slots + search.num_hidden
    limits, trainings = config.limits, [trial.training for trial in search.trials.values()]
    if limits["total_epochs"] is not None:
        most = limits["total_epochs"] - config.epochs_set_aside + over
        detail = f"{search.num_epochs} epochs, at most {most}"
        holds(search.num_epochs <= most, "epochs within the budget", detail)
    dearest = max((max(t.seconds) for t in trainings), default=0.0)
    cheapest = min((t.seconds[-1] for t in trainings), default=0.0)
    for name, taken, num_over, hidden in (
        ("gpu_hours", search.seconds, over + search.num_lost, 0.0),
        ("wall_clock_hours", search.now, 1, search.seconds_hidden),
    ):
        limit = limits[name]
        if limit is not None:
            after = min(limit * 3600 / 2, config.fresh_epochs * cheapest)
            most = limit * 3600 - after + num_over * dearest + hidden
            holds(taken <= most, f"{name} within the budget", f"{taken} s, at most {most}")


def has_ended_well(search: RandomSearch) -> None:
    """Checks the study at the end of a search."""
    trials, config = search.study.trials(), search.config
    running = [trial.number for trial in trials if trial.state == "RUNNING"]
    holds(not running, "nothing runs at the end", running)
    numbers = [trial.number for trial in search.study.optuna_study.get_trials(deepcopy=False)]
    holds(numbers == list(range(len(numbers))), "numbers are 0..n-1", numbers)
    holds(num_counted(trials) <= config.study.num_trials, "no more trials than asked for")
    is_noted = is_noted_as_over(search.study, config)
    holds(is_noted, "that it is over is noted", search.study.metadata.limits_reached)
    for trial in trials:
        is_true(search, trial)
    default_is_whole(search, trials[0])
    uses_what_is_left(search, trials)


def is_true(search: RandomSearch, trial: TrialSummary) -> None:
    """Checks that the study's record of an ended trial agrees with its real training."""
    number, curve = trial.number, dict(trial.curve)
    holds(list(curve) == list(range(1, len(curve) + 1)), "curves have no gaps", trial)
    if trial.outcome == "INFEASIBLE":
        holds(number not in search.trials, "what is infeasible is not trained", trial)
        return
    holds(number in search.trials, "a trial that has ended was run", trial)
    metric, truth = search.config.study.metric, search.trials[number]
    told = {epoch: truth.told[epoch][metric] for epoch in sorted(truth.told)}
    holds(repr(told) == repr(curve), "the study has what was trained", (number, told, curve))
    reason = str(trial.attributes["end_reason"])
    best = None if truth.best_epoch is None else told[truth.best_epoch]
    detail = f"trial {number}: {trial.state}, {reason!r}, in truth {truth.end}, {truth.error}"
    holds(is_true_end(search, trial, reason), "ends are true", detail)
    holds(is_true_place(search, trial, reason), "where a trial was stopped is true", detail)
    value = best if trial.state == "COMPLETE" else None
    holds(trial.value == value, "a value is that of the best epoch", (trial.value, value))
    if trial.state != "FAIL":
        kept = trial.attributes["best_value"]
        holds(kept == best, "what is kept is the best epoch's", (number, kept, best))
    if trial.state == "COMPLETE":
        row = truth.told[truth.best_epoch or 0]
        for bound in search.config.study.constraints:
            if bound.name in METRICS:
                known, right = trial.constraints.get(str(bound)), bound.violation(row[bound.name])
                holds(known == pytest.approx(right), "constraints are told", (number, known))


def is_true_end(search: RandomSearch, trial: TrialSummary, reason: str) -> bool:
    """Whether a trial's state and end reason agree with its real end."""
    truth, epoch = search.trials[trial.number], trial.num_epochs
    if trial.state == "COMPLETE":
        is_whole = epoch == search.config.train.max_epochs
        return reason == truth.end == ("completed" if is_whole else "early_stopped")
    if trial.state == "FAIL":
        error = truth.error
        is_broken = truth.end in {"failed", "lost"} and error is not None
        return is_broken and reason == f"{error.type}: {error.message}"  # type: ignore
    if reason == "diverged":
        return truth.end == "diverged"
    # A trial that was resumed stays paused if the driver is killed before the trial's next report.
    is_paused = reason == f"paused at epoch {epoch}" and truth.stopped_at == epoch
    return is_paused or truth.end == "stopped"


def is_true_place(search: RandomSearch, trial: TrialSummary, reason: str) -> bool:
    """Whether the scheduler can have stopped the trial at that epoch; True for other ends."""
    scheduler, limits, epoch = search.config.scheduler, search.config.limits, trial.num_epochs
    rungs = rung_epochs(scheduler, search.config.train.max_epochs)
    if trial.state != "PRUNED" or reason == "diverged":
        return True
    if reason == "stopped at the budget's end":
        return any(limits[name] for name in ("total_epochs", "gpu_hours", "wall_clock_hours"))
    if reason == f"stopped at rung {epoch}":
        return scheduler.name in {"asha", "hyperband"} and epoch in rungs
    if reason == f"stopped at epoch {epoch}":
        return scheduler.name == "median" and epoch >= (scheduler.min_epochs or 1)
    is_rung = scheduler.name == "freeze_thaw" or epoch in rungs
    return scheduler.name in PAUSING and reason == f"paused at epoch {epoch}" and is_rung


def default_is_whole(search: RandomSearch, default: TrialSummary) -> None:
    """Checks that only lost epochs, or a limit in hours, may stop the default configuration."""
    hours = ("gpu_hours", "wall_clock_hours")
    if any(search.config.limits[name] for name in hours) or default.outcome == "INFEASIBLE":
        return
    if not search.num_lost:
        holds(search.trials[0].end != "stopped", "the default is not stopped", default)


def uses_what_is_left(search: RandomSearch, trials: tuple[TrialSummary, ...]) -> None:
    """Checks that an ended search whose budget has room has run all trials asked for."""
    config = search.config
    if config.budget.stop_when is not None or not leaves_two_trainings(search):
        return
    num_counted_ = num_counted(trials)
    is_all = num_counted_ >= config.study.num_trials or search.decisions.is_exhausted
    holds(is_all, "what is left is used", f"{num_counted_} of {config.study.num_trials} trials")
    if config.scheduler.name == "freeze_thaw":
        new = [trial for trial in trials if trial.number not in search.given_up]
        reasons = [(trial.number, str(trial.attributes["end_reason"])) for trial in new]
        paused = [(number, reason) for number, reason in reasons if reason.startswith("paused")]
        holds(not paused, "what is left brings paused trials to their end", paused)


def leaves_two_trainings(search: RandomSearch) -> bool:
    """Whether each limit leaves room for two more trials of full length."""
    config, trials = search.config, search.trials.values()
    limits, two = config.limits, 2 * config.train.max_epochs
    left = math.inf
    if limits["total_epochs"] is not None:
        left = limits["total_epochs"] - config.epochs_set_aside - search.num_epochs - two
    dearest = max((max(trial.training.seconds) for trial in trials), default=0.0)
    for name, taken in (("gpu_hours", search.seconds), ("wall_clock_hours", search.now)):
        if limits[name] is not None:
            limit = float(limits[name] or 0) * 3600
            after = min(limit / 2, config.num_fresh_trainings * config.fresh_epochs * dearest)
            left = min(left, limit - after - taken - (two + 2 * search.num_lost) * dearest)
    return left > 0


def searched(plan: Plan, folder: Path) -> RandomSearch:
    """Runs the search of a plan, and checks the invariants at each step and at each end."""
    search = RandomSearch(plan, folder)
    try:
        for _ in range(most_steps(plan)):
            event = search.step()
            keeps_to_its_limits(search)
            holds(not search.changes_by_asking, "asking changes nothing", search.changes_by_asking)
            if event == "ended" and not goes_on_after_its_end(search):
                return search
        holds(False, "it ends", f"{most_steps(plan)} steps were not enough")
    except BrokenInvariantError as error:
        error.search = search
        raise
    return search


def goes_on_after_its_end(search: RandomSearch) -> bool:
    """Checks an ended search; returns whether the search goes on with raised limits."""
    holds(search.had_ended or search.decisions.finished, "what has ended is finished")
    has_ended_well(search)
    return search.raise_limits()


def most_steps(plan: Plan) -> int:
    study = plan.configs[-1].study
    of_a_trial = (plan.trainings.max_epochs + 2) * (study.max_retries + 2) + 10
    return (study.num_trials + 20) * of_a_trial * (plan.num_kills + len(plan.configs) + 1)


def same_trials(search: RandomSearch, other: RandomSearch, invariant: str) -> None:
    for pair in itertools.zip_longest(history(search), history(other)):
        same(search, pair, invariant)


def history(search: RandomSearch) -> list[str]:
    """The trials and first rungs of a search; equal for searches with equal decisions."""
    trials = [
        repr((t.number, t.params, t.state, t.curve, t.attributes.get("end_reason"), t.value))
        for t in search.study.trials()
    ]
    return [*trials, f"first levels {search.study.metadata.first_levels}"]


def same(search: RandomSearch, pair: tuple[object, object], invariant: str) -> None:
    if pair[0] != pair[1]:
        error = BrokenInvariantError(invariant, f"\n{pair[0]}\n{pair[1]}")
        error.search = search
        raise error
