"""Searches on a simulated clock: the real Engine decides, learning curves are known beforehand."""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, default_params
from hpo.engine.checkpoints import TrialCheckpoints
from hpo.engine.engine import Engine
from hpo.simulation.shared_slots import SimulatedWorkers
from hpo.study.study import SearchStudy
from hpo.study.trial import EndReason, Proposal, TrialReport

SECONDS_OF_A_DECISION: Final = 2e-3


@dataclass(frozen=True)
class Curve:
    """A training that is known beforehand: the metric and the seconds of each epoch, from 1 on."""

    values: Sequence[float]
    seconds: Sequence[float]


class SimulatedSearch:
    """A search whose trials take time on the simulated clock only.

    Args:
        config: The config of the search.
        curve_of: Returns the training of params: max_epochs epochs, or fewer if the training
            stops early or diverges.
        num_slots: The most trials that run at a time.
        study: The study to continue, as after a crash; None: a new study in memory.
        architectures: The costs of each architecture, by name, if the config names costs.
        gpus_of: Returns the GPUs of a trial by its params; 0: it counts as one on one GPU.
        workers: The workers, where trials take different shares of a GPU; None: any trial may
            run in any slot.

    Attributes:
        config: The config of the search.
        study: The study with all trials.
        now: Seconds on the simulated clock.
        num_epochs: Epochs trained so far, summed over all trials.
        seconds: Simulated seconds of training so far, summed over all trials.
        gpu_seconds: The same, times the GPUs of each trial.
        curves: Each trial's training, by trial number.
        epochs: The last epoch of each trial so far, by trial number.
        decision_seconds: Wall-clock seconds of each decision that took a noticeable time.
    """

    def __init__(
        self,
        config: SearchConfig,
        curve_of: Callable[[Params], Curve],
        num_slots: int,
        study: SearchStudy | None = None,
        architectures: Mapping[str, Mapping[str, float]] | None = None,
        *,
        gpus_of: Callable[[Params], float] = lambda _: 0.0,
        workers: SimulatedWorkers | None = None,
    ) -> None:
        self.config, self._curve_of, self._gpus_of = config, curve_of, gpus_of
        self._workers = workers
        self.study = study or SearchStudy.in_memory(config.study, config.space)
        if architectures:
            self.study.metadata.architectures = architectures
        self.study.enqueue_first_trials(default_params(config.train, config.space))
        maximise = config.study.objective.maximises
        checkpoints = TrialCheckpoints(Path("simulated"), 1, maximise=maximise)
        self.now = 0.0
        self.decisions = Engine(
            config, self.study, num_slots, _Silent(), checkpoints, lambda: self.now
        )
        self.num_epochs, self.seconds, self.gpu_seconds = 0, 0.0, 0.0
        self.curves: dict[int, Curve] = {}
        self.epochs: dict[int, int] = {}
        self._num_gpus: dict[int, float] = {}  # by trial
        self.decision_seconds: list[float] = []
        self._order = itertools.count()
        self._queue: list[tuple[float, int, int]] = []

    def step(self) -> bool:
        """Advances the clock to the next end of an epoch; False when the search is over."""
        begin = time.perf_counter()
        if self._start_trials():
            self.decision_seconds.append(time.perf_counter() - begin)
        if not self._queue:
            self.decisions.settle()
            return False
        self.now, _, number = heapq.heappop(self._queue)
        curve = self.curves[number]
        self.epochs[number] += 1
        epoch = self.epochs[number]
        self.num_epochs += 1
        self.seconds += curve.seconds[epoch - 1]
        self.gpu_seconds += curve.seconds[epoch - 1] * self._num_gpus[number]
        report = self._report(number, epoch)
        begin = time.perf_counter()
        goes_on = report.end_reason is None and self.decisions.on_report(report)
        seconds = time.perf_counter() - begin
        if seconds > SECONDS_OF_A_DECISION:  # shorter times are mere writing
            self.decision_seconds.append(seconds)
        if not goes_on:
            self._end(report)
        elif self._workers is not None and self._workers.makes_way(number):
            self._end(TrialReport(number, (), EndReason.LEFT))
        else:
            self._train(number)
        return True

    def run(self) -> None:
        """Runs the search to its end."""
        while self.step():
            pass

    def _start_trials(self) -> int:
        """Starts or resumes trials in the free slots; returns how many."""
        num_started = 0
        while (proposal := self._next_trial()) is not None:
            num_started += 1
            number, epoch = proposal.number, proposal.num_epochs_reported
            if number not in self.curves:
                self.curves[number], self.epochs[number] = self._curve_of(proposal.params), epoch
                self._num_gpus[number] = self._gpus_of(proposal.params)
            if epoch:  # like a worker, report earlier epochs first
                rows = tuple(self._row(number, e) for e in range(1, epoch + 1))
                if self._end_reason(number, epoch):  # only its end was missing in the study
                    self._end(self._report(number, epoch))
                    continue
                if not self.decisions.on_report(TrialReport(number, rows)):
                    self._end(TrialReport(number, ()))
                    continue
            self._train(number)
        return num_started

    def _next_trial(self) -> Proposal | None:
        ask = self.decisions.next_trial
        return ask() if self._workers is None else self._workers.next_trial(ask)

    def _end(self, report: TrialReport) -> None:
        if self._workers is not None:
            self._workers.end(report.number)
        self.decisions.on_end(report)

    def _train(self, number: int) -> None:
        seconds = self.curves[number].seconds[self.epochs[number]]
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), number))

    def _row(self, number: int, epoch: int) -> dict[str, float]:
        curve = self.curves[number]
        return {
            "epoch": epoch,
            self.config.study.metric: curve.values[epoch - 1],
            "seconds": curve.seconds[epoch - 1],
        }

    def _report(self, number: int, epoch: int) -> TrialReport:
        curve = self.curves[number]
        seconds = float(sum(curve.seconds[:epoch]))
        facts = {
            "seconds": seconds,
            "gpu_seconds": seconds * self._num_gpus[number],
            "num_epochs_trained": epoch,
            **dict.fromkeys(self.config.study.trial_costs, 0.0),  # no model is there to lose any
        }
        row = self._row(number, epoch)
        return TrialReport(number, (row,), self._end_reason(number, epoch), facts)

    def _end_reason(self, number: int, epoch: int) -> EndReason | None:
        """The reason why a trial's training ends after `epoch`; None: it goes on."""
        values = self.curves[number].values
        if math.isnan(values[epoch - 1]):
            return EndReason.DIVERGED
        if epoch < len(values):
            return None
        is_whole = epoch >= self.config.train.max_epochs
        return EndReason.COMPLETED if is_whole else EndReason.EARLY_STOPPED


class _Silent:
    """A SearchObserver that ignores all events."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None
