"""StudyReader: reads a study that a search works on, again and again, and little each time."""

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from optuna.trial import TrialState

from hpo.config.schema import SearchConfig
from hpo.engine.budget import UNITS, Budget
from hpo.engine.ledger import TrialLedger
from hpo.reporting.health import HealthCard, health_cards
from hpo.reporting.searched import Searched
from hpo.selection.finalists import comparison_progress, read_verdict
from hpo.selection.selection import best_so_far
from hpo.selection.verdict import Verdict
from hpo.study.driver import is_driven
from hpo.study.frozen import summary_of
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

SECONDS_BETWEEN_CHECKS: Final = 30.0  # of the search's health
LEAST_SECONDS, MOST_SECONDS = 1.0, 15.0  # between two reads
SHARE_OF_A_CORE: Final = 0.01  # that reading takes at most, within these bounds


@dataclass(frozen=True)
class StudyFacts:
    """A study at one moment.

    Attributes:
        trials: The trials that have started, by number.
        best: Number and value of the best trial; None: there is none yet.
        budget: What is left of each limit, such as '39 of 100 epochs'.
        seconds: How long all searches over the study have run, as last noted.
        seconds_left: Seconds until a limit of hours is reached, at the pace so far; None: no such
            limit, or no pace yet.
        verdict: The finalists' results; None: there are none yet.
        compared: How many of the finalists' trainings have ended, and how many there are; None:
            there are no finalists.
        is_driven: Whether a search works on the study.
        health: The outcomes of the checks, the worst first, half a minute old at most.
    """

    trials: Sequence[TrialSummary]
    best: tuple[int, float] | None
    budget: tuple[str, ...]
    seconds: float
    seconds_left: float | None
    verdict: Verdict | None
    compared: tuple[int, int] | None
    is_driven: bool
    health: tuple[HealthCard, ...]

    @property
    def states(self) -> Counter[str]:
        """The number of ended trials by state."""
        return Counter(t.outcome for t in self.trials if t.state != TrialStatus.RUNNING)


class StudyReader:
    """Reads a study that a search works on. A trial that has ended is read once.

    Args:
        study: The study; nothing is written to it, and its gate is not used.
        config: The config of the search.
        clock: Returns seconds.

    Attributes:
        seconds_to_wait: How long to wait until the next read, so that reading takes a hundredth
            of a core.
    """

    def __init__(
        self,
        study: SearchStudy,
        config: SearchConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._config, self._clock = study, config, clock
        self._ended: dict[int, TrialSummary] = {}
        self._health: tuple[HealthCard, ...] = ()
        self._next_check = 0.0
        self.seconds_to_wait = LEAST_SECONDS

    def read(self) -> StudyFacts:
        """The study as it is now."""
        start, cpu = self._clock(), time.thread_time()
        facts = self._read(start)
        wanted = (time.thread_time() - cpu) / SHARE_OF_A_CORE
        self.seconds_to_wait = min(max(LEAST_SECONDS, wanted), MOST_SECONDS)
        return facts

    def _read(self, now: float) -> StudyFacts:
        config, attributes = self._config, self._study.optuna_study.user_attrs
        study = copy.copy(self._study)
        study.metadata = self._study.metadata.as_of(attributes)
        trials = self._trials()
        best = best_so_far(trials, config)
        verdict = read_verdict(config, study, trials)
        ledger = TrialLedger(config.study.objective, trials)
        budget = Budget.of_study(config, study, ledger=ledger)
        if now >= self._next_check:
            self._next_check = now + SECONDS_BETWEEN_CHECKS
            self._health = health_cards(Searched.of(config, study, trials, verdict))
        return StudyFacts(
            trials=trials,
            best=None if best is None else (best[0].number, best[1]),
            budget=_left(budget),
            seconds=study.metadata.seconds_searched,
            seconds_left=_seconds_left(budget),
            verdict=verdict,
            compared=comparison_progress(config, study, trials),
            is_driven=is_driven(attributes.get("driver")),
            health=self._health,
        )

    def _trials(self) -> tuple[TrialSummary, ...]:
        """All trials that have started; those that had ended before are not made anew."""
        started = []
        for trial in self._study.optuna_study.get_trials(deepcopy=False):
            if trial.state == TrialState.WAITING:
                continue
            known = self._ended.get(trial.number)
            summary = known or summary_of(trial, self._config.study)
            if known is None and trial.state.is_finished():
                self._ended[trial.number] = summary
            started.append(summary)
        return tuple(started)


def _left(budget: Budget) -> tuple[str, ...]:
    """What is left of each limit, in words."""
    texts = []
    for limit in budget.limits:
        name, unit = UNITS[limit.name]
        left = max(0.0, limit.total - budget.taken(limit))
        texts.append(f"{_brief(left / unit)} of {_brief(limit.total / unit)} {name}")
    return tuple(texts)


def _brief(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _seconds_left(budget: Budget) -> float | None:
    """Seconds until trials have used up a limit of hours, at the pace so far."""
    found = []
    for limit in budget.limits:
        left, taken = max(0.0, budget.left(limit)), budget.taken(limit)
        if limit.name == "wall_clock_hours":
            found.append(left)
        elif limit.name == "gpu_hours" and taken:
            found.append(budget.seconds * left / taken)
    return min(found, default=None)
