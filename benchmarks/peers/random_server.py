"""A peer of a few lines, for the test of the wire and as a start for others: random search.

Every trial pauses at the first rung; the best paused one is resumed at every third request. So the
wire's starts, pauses, resumes and recommendations are all used. It is no published strategy.
"""

import math
import random
from typing import Any

from wire import Params, Settings, serve


class RandomPeer:
    """Random configurations after the default one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rng = random.Random(settings["seed"])
        self._num_asked = self._num_started = 0
        self._paused: dict[int, float] = {}
        self._best: tuple[float, int] = (-math.inf, 0)

    def ask(self) -> dict[str, Any]:
        self._num_asked += 1
        if self._num_asked % 3 == 0 and self._paused:
            trial = max(self._paused, key=self._paused.__getitem__)
            del self._paused[trial]
            return {"trial": trial}
        self._num_started += 1
        trial = self._num_started - 1
        return {"trial": trial, "params": self._draw() if trial else self._settings["default"]}

    def report(self, trial: int, epoch: int, value: float) -> bool:
        self._best = max(self._best, (value, trial))
        if epoch == self._settings["first_rung"]:
            self._paused[trial] = value
            return False
        return True

    def recommend(self) -> int:
        return self._best[1]

    def _draw(self) -> Params:
        params = {}
        for name, entry in self._settings["space"].items():
            if entry["type"] == "categorical":
                params[name] = self._rng.choice(entry["choices"])
                continue
            low, high = entry["low"], entry["high"]
            if entry["log"]:
                value = math.exp(self._rng.uniform(math.log(low), math.log(high)))
            else:
                value = self._rng.uniform(low, high)
            params[name] = round(value) if entry["type"] == "int" else min(max(value, low), high)
        return params


serve(RandomPeer)
