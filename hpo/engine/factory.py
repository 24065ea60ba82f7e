"""The decisions that a search file asks for."""

import time
from collections.abc import Callable

from hpo.config.schema import PAUSING, SearchConfig
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.decisions import Decisions
from hpo.engine.observer import SearchObserver
from hpo.study.study import SearchStudy


def make_decisions(
    config: SearchConfig,
    study: SearchStudy,
    num_slots: int,
    observer: SearchObserver,
    checkpoints: TrialCheckpoints,
    clock: Callable[[], float] = time.monotonic,
) -> Decisions:
    """By `scheduler.name`, over the study as it is; arguments as those of Decisions."""
    if config.scheduler.name in PAUSING:
        from hpo.engine.pausing import (
            PausingDecisions,  # SciPy takes a second, and is not always needed
        )

        return PausingDecisions(config, study, num_slots, observer, checkpoints, clock)
    return Decisions(config, study, num_slots, observer, checkpoints, clock)
