"""Which running trials stop: the rule that scheduler.name asks for."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from hpo.config.schema import SchedulerConfig
from hpo.schedulers.asha import AsynchronousHalving, Hyperband
from hpo.schedulers.median import MedianStopping


class StoppingRule(Protocol):
    """Compares trials at equal epochs. It is told the curves of earlier runs, by number, first."""

    def goes_on(
        self, number: int, curve: Mapping[int, float], costs: Sequence[float] = ()
    ) -> bool:
        """Whether a trial continues after the epochs of its curve (metric by epoch).

        `costs` are its other objectives, the smaller the better.
        """


def make_stopping_rule(
    config: SchedulerConfig, max_epochs: int, *, maximise: bool
) -> StoppingRule:
    """By `scheduler.name`; none, and those that pause trials, stop no trial."""
    if config.name == "median":
        return MedianStopping(config, maximise=maximise)
    if config.name == "hyperband":
        return Hyperband(config, max_epochs, maximise=maximise)
    return AsynchronousHalving(config, max_epochs, maximise=maximise)
