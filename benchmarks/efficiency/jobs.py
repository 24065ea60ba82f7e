"""Simulated searches: their settings, their trainings, what they come to, and the kept ones."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from beds import Array, Params, load_task

Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """The settings of one simulated search."""

    strategy: str
    bed: str
    data: Path
    task: str
    seed: int
    workers: int
    noise: float
    clock: str
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What one search came to.

    Attributes:
        regrets: By budget, of what is delivered.
        losses: By budget, how much larger that regret is than that of the default configuration or
            of the trial with the best value seen, whichever is smaller.
        decision_seconds: How long each decision took.
        num_trials: How many trials were started.
        others: By another rule of delivering, its regrets by budget.
        delivered: By budget, the configuration that is delivered.
    """

    regrets: dict[int, float]
    losses: dict[int, float]
    decision_seconds: list[float]
    num_trials: int
    others: dict[str, dict[int, float]] = field(default_factory=dict)
    delivered: dict[int, Params] = field(default_factory=dict)


class Trainings:
    """The trainings of one search: true curves, noisy observations and costs."""

    def __init__(self, job: Job) -> None:
        self.task = load_task(job.bed, job.data, job.task)
        self._rng = np.random.default_rng([job.seed, 1])
        self._noise = job.noise
        _, seconds = self.task.curve(self.task.default)
        self._mean_seconds = None if job.clock == "epochs" else float(seconds.mean())

    def curve(self, params: Params) -> tuple[Array, Array, Array]:
        """True values, observed values and costs (in default epochs) of each epoch, each (n,)."""
        values, seconds = self.task.curve(params)
        costs = np.ones(len(values))
        if self._mean_seconds is not None:
            costs = seconds / self._mean_seconds
        observed = values + self.task.noise(self._rng)
        return values, observed + self._rng.normal(0.0, self._noise, len(values)), costs


def keep(kept: Path, job: Job, outcome: Outcome) -> None:
    with kept.open("a") as file:
        # Begins with a newline: the last line may have been cut by a kill.
        file.write("\n" + json.dumps([key_of(job), dataclasses.asdict(outcome)]))


def read_kept(kept: Path | None) -> Iterator[tuple[str, Outcome]]:
    """The keys and outcomes of finished searches."""
    for line in kept.read_text().splitlines() if kept is not None and kept.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a kill has cut this line
            key, outcome = json.loads(line)
            for name in ("regrets", "losses", "delivered"):
                outcome[name] = _by_budget(outcome.get(name, {}))
            others = outcome.get("others", {})
            outcome["others"] = {rule: _by_budget(regrets) for rule, regrets in others.items()}
            yield key, Outcome(**outcome)


def key_of(job: Job) -> str:
    """What tells a search from others: its settings, and its data if these are one file."""
    data = job.data.resolve()
    name = data.name
    if data.is_file():  # one that may have grown under the same name
        name += f" {hashlib.sha256(data.read_bytes()).hexdigest()[:12]}"
    return json.dumps(dataclasses.asdict(job) | {"data": name})


def _by_budget(values: Mapping[str, Value]) -> dict[int, Value]:
    return {int(budget): value for budget, value in values.items()}
