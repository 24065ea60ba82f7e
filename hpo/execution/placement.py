"""Says when Ray cannot place any training, and for how long a search waits for it."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from hpo.config.sections import ResourcesConfig
from hpo.errors import ClusterError, RunError
from hpo.execution.cluster import cluster_nodes, trial_resources

# A training that can be placed starts within this time, also where a node reads Python's packages
# over a network.
SECONDS_TO_START: Final = 60.0
SECONDS_BETWEEN_NOTES: Final = 900.0
SECONDS_AN_HOUR: Final = 3600.0


class PlacementWatch:
    """Tells the user that no training runs, first after a minute, and then every 15 minutes.

    Args:
        config: The search's resources.
        note: Gets what is to be said.
        clock: Returns seconds.
    """

    def __init__(
        self,
        config: ResourcesConfig,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._note, self._clock = config, note, clock
        self._since = clock()
        self._next_note = self._since + SECONDS_TO_START

    def look(self, is_running: bool) -> RunError | None:
        """Takes notice of whether any training runs; returns an error when the time is over."""
        now = self._clock()
        if is_running:
            self._since, self._next_note = now, now + SECONDS_TO_START
            return None
        left = self._config.wait_hours * SECONDS_AN_HOUR - (now - self._since)
        # Processes that fit have a minute to start, however short the time to wait is.
        if left <= 0 and (now - self._since >= SECONDS_TO_START or not self._fits()):
            return RunError(
                f"no training could run for {self._config.wait_hours:g} hours "
                f"(resources.wait_hours): {self._reason()}; continue with --resume"
            )
        if now >= self._next_note:
            self._next_note = now + SECONDS_BETWEEN_NOTES
            end = datetime.now() + timedelta(seconds=left)
            self._note(
                f"no training runs: {self._reason()}; waiting until {end:%d %B, %H:%M} "
                "(resources.wait_hours)"
            )
        return None

    def _fits(self) -> bool:
        try:
            trial_resources(self._config, cluster_nodes())
        except ClusterError:
            return False
        return True

    def _reason(self) -> str:
        try:
            one = trial_resources(self._config, cluster_nodes())
        except ClusterError as error:
            return str(error)
        return (
            f"a training takes {one.text}, and others have what the nodes have, or its process is "
            "still starting"
        )
