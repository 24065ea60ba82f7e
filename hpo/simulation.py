"""Searches on a simulated clock: the real decisions, over curves that are known beforehand."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.checkpoints import TrialCheckpoints
from hpo.config import SearchConfig
from hpo.decisions import Decisions
from hpo.search_space import Params, default_params
from hpo.study import SearchStudy
from hpo.trial_report import TrialReport
from sgformer.config import maximises


@dataclass(frozen=True)
class Curve:
    """A training that is known beforehand: the objective after each epoch, and its seconds."""

    values: Sequence[float]
    seconds: Sequence[float]


class SimulatedSearch:
    """A search whose trials take no time but the simulated clock's.

    Args:
        config: Of the search.
        curve_of: The training of params; as long as max_epochs, or shorter if it ends itself.
        num_slots: Trials at a time.

    Attributes:
        study: With all trials, in memory.
        now: Seconds on the simulated clock.
        num_epochs: Trained so far, in all trials.
        seconds: Of training, in all trials.
        curves: Of the trials, by number.
    """

    def __init__(
        self, config: SearchConfig, curve_of: Callable[[Params], Curve], num_slots: int
    ) -> None:
        self._config, self._curve_of = config, curve_of
        self.study = SearchStudy.in_memory(config.study, config.space)
        self.study.enqueue_first_trials(default_params(config.train, config.space))
        maximise = maximises(config.study.metric)
        checkpoints = TrialCheckpoints(Path("simulated"), 1, maximise=maximise)
        self.decisions = Decisions(config, self.study, num_slots, _Silent(), checkpoints)
        self.now, self.num_epochs, self.seconds = 0.0, 0, 0.0
        self.curves: dict[int, Curve] = {}
        self._epochs: dict[int, int] = {}
        self._order = itertools.count()
        self._queue: list[tuple[float, int, int]] = []

    def step(self) -> bool:
        """Up to the end of the next epoch that ends; False when the search is over."""
        self._start_trials()
        if not self._queue:
            return False
        self.now, _, number = heapq.heappop(self._queue)
        curve = self.curves[number]
        self._epochs[number] += 1
        epoch = self._epochs[number]
        self.num_epochs += 1
        self.seconds += curve.seconds[epoch - 1]
        report = self._report(number, epoch)
        if report.end_reason is None and self.decisions.on_report(report):
            self._train(number)
        else:
            self.decisions.on_end(report)
        return True

    def run(self) -> None:
        """To its end."""
        while self.step():
            pass

    def _start_trials(self) -> None:
        while (proposal := self.decisions.next_trial()) is not None:
            number = proposal.number
            if number not in self.curves:
                self.curves[number], self._epochs[number] = self._curve_of(proposal.params), 0
            self._train(number)

    def _train(self, number: int) -> None:
        seconds = self.curves[number].seconds[self._epochs[number]]
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), number))

    def _report(self, number: int, epoch: int) -> TrialReport:
        curve = self.curves[number]
        row = {
            "epoch": epoch,
            self._config.study.metric: curve.values[epoch - 1],
            "seconds": curve.seconds[epoch - 1],
        }
        end_reason = None
        if epoch == len(curve.values):
            is_whole = epoch >= self._config.train.max_epochs
            end_reason = "completed" if is_whole else "early_stopped"
        return TrialReport(number, (row,), end_reason)


class _Silent:
    """A SearchObserver that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None
