"""Trials of the wire for libraries whose jobs are "train this configuration to that epoch".

A job for a configuration that has been trained before resumes its trial; one to an epoch that it
has passed is told at once from the values reported so far, and costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wire import Params

MAX_KNOWN = 1000  # jobs in a row whose values were known


@dataclass(frozen=True)
class EpochJob:
    """A job of the library; `job` is its own object, and equal keys mean the same training."""

    key: Any
    params: Params
    until: int
    job: Any


@dataclass
class _Trial:
    values: list[float] = field(default_factory=list)
    running: EpochJob | None = None


class EpochJobs:
    """Starts and resumes trials for the jobs of `next_job`, and tells their values to `tell`."""

    def __init__(
        self, next_job: Callable[[], EpochJob | None], tell: Callable[[EpochJob, float], None]
    ) -> None:
        self._next_job, self._tell = next_job, tell
        self._trials: list[_Trial] = []
        self._of_key: dict[Any, int] = {}

    def ask(self) -> dict[str, Any]:
        for _ in range(MAX_KNOWN):
            job = self._next_job()
            if job is None:
                return {"trial": None}
            number = self._of_key.get(job.key)
            if number is None or self._trials[number].running:
                return self._start(job)
            trial = self._trials[number]
            if len(trial.values) < job.until:
                trial.running = job
                return {"trial": number}
            self._tell(job, trial.values[job.until - 1])
        raise RuntimeError(f"{MAX_KNOWN} jobs in a row were of known values, at last {job}")

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial = self._trials[number]
        trial.values.append(value)
        job = trial.running
        assert job is not None
        if epoch < job.until:
            return True
        trial.running = None
        self._tell(job, value)
        return False

    def trial_of(self, key: Any) -> int | None:
        return self._of_key.get(key)

    def _start(self, job: EpochJob) -> dict[str, Any]:
        number = len(self._trials)
        self._trials.append(_Trial(running=job))
        self._of_key[job.key] = number
        return {"trial": number, "params": job.params}
