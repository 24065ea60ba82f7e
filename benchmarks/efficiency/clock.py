"""Asynchronous workers on a simulated clock, for every search that is asked and told."""

import heapq
import itertools
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from beds import Array, Params, regret
from efficiency.jobs import Job, Outcome, Trainings


@dataclass(frozen=True)
class Work:
    """What a free worker trains: a new trial, or a paused one from where it was left.

    Attributes:
        trial: The trial's number; new trials are numbered from 0 in the order of starting.
        params: The configuration of a new trial; None resumes a paused one.
    """

    trial: int
    params: Params | None


class Search(Protocol):
    """Who decides: starts, resumes and stops trials, and knows no budget."""

    def ask(self) -> Work | None:
        """What a free worker trains; None lets it wait for the next report."""
        ...

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        """Whether a trial with this new value trains its next epoch now."""
        ...

    def recommended(self) -> int | None:
        """The trial that the search itself would deliver; None where it has no such rule."""
        ...


class ClockedRun:
    """A search and its workers; an epoch is paid for once, however often its trial pauses."""

    def __init__(self, job: Job, trainings: Trainings, search: Search) -> None:
        self._trainings, self._search = trainings, search
        self.curves: list[tuple[Array, Array, Array]] = []
        self.params: list[Params] = []
        self._epochs: list[int] = []
        self._running: set[int] = set()
        self._queue: list[tuple[float, int, int]] = []
        self._order = itertools.count()
        self._num_free = job.workers
        self.decision_seconds: list[float] = []
        self.spent, self.best, self._best_value = 0.0, 0, -np.inf
        self._employ(0.0)

    def step(self) -> None:
        """Trains the epoch that ends next, reports it, and gives work to free workers."""
        if not self._queue:
            raise RuntimeError("the search lets every worker wait, and no trial is running")
        now, _, trial = heapq.heappop(self._queue)
        self._epochs[trial] += 1
        epoch = self._epochs[trial]
        _, observed, costs = self.curves[trial]
        self.spent += costs[epoch - 1]
        value = float(observed[epoch - 1])
        if value > self._best_value:
            self.best, self._best_value = trial, value
        if self._search.goes_on(trial, epoch, value) and epoch < len(observed):
            self._train(trial, now)
        else:
            self._running.remove(trial)
            self._num_free += 1
        self._employ(now)

    def _employ(self, now: float) -> None:
        while self._num_free:
            begin = time.perf_counter()
            work = self._search.ask()
            if work is None:
                return
            self.decision_seconds.append(time.perf_counter() - begin)
            self._admit(work)
            self._num_free -= 1
            self._train(work.trial, now)

    def _admit(self, work: Work) -> None:
        if work.params is not None and work.trial == len(self.curves):
            self.curves.append(self._trainings.curve(work.params))
            self.params.append(work.params)
            self._epochs.append(0)
        elif work.params is not None or not self._can_resume(work.trial):
            raise ValueError(f"{work}: neither the next new trial nor a paused one")
        self._running.add(work.trial)

    def _can_resume(self, trial: int) -> bool:
        return (
            0 <= trial < len(self.curves)
            and trial not in self._running
            and self._epochs[trial] < len(self.curves[trial][0])
        )

    def _train(self, trial: int, now: float) -> None:
        end = now + self.curves[trial][2][self._epochs[trial]]
        heapq.heappush(self._queue, (end, next(self._order), trial))


def run_on_clock(job: Job, trainings: Trainings, search: Search) -> Outcome:
    """One run through all budgets, which delivers the trial with the best value seen."""
    task = trainings.task
    run = ClockedRun(job, trainings, search)
    regrets, losses, own = dict[int, float](), dict[int, float](), dict[int, float]()
    delivered, has_own_choice = dict[int, Params](), False
    default, _ = task.curve(task.default)
    for budget in job.budgets:
        while run.spent < task.max_epochs * budget:
            run.step()
        regrets[budget] = regret(task, run.curves[run.best][0])
        delivered[budget] = run.params[run.best]
        losses[budget] = max(0.0, regrets[budget] - regret(task, default))
        recommended = search.recommended()
        has_own_choice |= recommended is not None
        chosen = run.best if recommended is None else recommended
        own[budget] = regret(task, run.curves[chosen][0])
    others = {"own choice": own} if has_own_choice else {}
    num_trials = len(run.curves)
    return Outcome(regrets, losses, run.decision_seconds, num_trials, others, delivered)
