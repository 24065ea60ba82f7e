"""What a search may cost, by what an epoch of its default configuration took here."""

from typing import Final

from hpo.config.schema import DEFAULT_SHARE_OF_EPOCHS, SearchConfig
from hpo.proposal.rules import Choice

NIGHT_HOURS: Final = 12.0  # a search that takes longer gets a limit
# Full trainings that a limit leaves room for: eleven are the trials', of whose fifth
# (retrain.max_share) a rival and the default can be trained.
LEAST_TRAININGS: Final = 13


def budget(config: SearchConfig, slots: int, epoch_seconds: float | None) -> Choice:
    """The number of trials with the time that they take, or a limit in hours.

    Args:
        config: The search.
        slots: Trials at a time.
        epoch_seconds: Seconds of an epoch of the default configuration, its validation included;
            None: it was not measured.
    """
    num_trials = config.study.num_trials
    if epoch_seconds is None:
        why = "`search FILE --dry-run --profile` tells how long they take"
        return Choice(("study", "num_trials"), num_trials, why)
    hours = epoch_seconds * config.train.max_epochs / 3600
    of_trials = DEFAULT_SHARE_OF_EPOCHS * num_trials
    trainings = of_trials + _trainings_after(config, of_trials)
    wall = trainings * hours / slots
    what = f"a full training takes {_time(hours)} here, and the search about as long as "
    what += f"{trainings:.0f} of them, {slots} at a time"
    if wall <= NIGHT_HOURS:
        return Choice(("study", "num_trials"), num_trials, f"{what}: about {_time(wall)}")
    limit = _rounded(max(NIGHT_HOURS, LEAST_TRAININGS * hours / slots))
    why = f"{what}: {_time(wall)} without this limit"
    if config.resources.gpus_per_trial == 0:
        return Choice(("budget", "wall_clock_hours"), limit, why)
    return Choice(("budget", "gpu_hours"), limit * slots, f"{limit:g} hours of each GPU; {why}")


def _trainings_after(config: SearchConfig, of_trials: float) -> float:
    """Full trainings after the search, whose trials take as long as `of_trials` of them."""
    one = config.fresh_epochs / config.train.max_epochs
    whole, share = config.num_fresh_trainings * one, config.retrain.max_share
    return whole if share is None else min(whole, max(one, share * of_trials))


def _rounded(hours: float) -> float:
    """Two digits, which is what an estimate is good for."""
    return float(f"{hours:.2g}")


def _time(hours: float) -> str:
    """A duration in words, such as '40 seconds' or '3.2 hours'."""
    for limit, unit in ((1 / 60, 3600), (1, 60)):
        if hours < limit:
            return f"{max(1, hours * unit):.0f} {'seconds' if unit == 3600 else 'minutes'}"
    return f"{hours:,.2g} hours" if hours < 100 else f"{hours:,.0f} hours"
