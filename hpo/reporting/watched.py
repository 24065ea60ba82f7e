"""WatchedStudy: a search that another process runs, as its study and its run folder tell it."""

import csv
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.engine.observer import Place
from hpo.errors import StudyError
from hpo.reporting.snapshot import Snapshot, TrialAtWork, epochs_left, number_text
from hpo.reporting.study_reader import StudyFacts, StudyReader
from hpo.reporting.words import is_paused
from hpo.run_folder import RunFolder
from hpo.study.gate import AWAY
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

NOT_RUNNING: Final = "no search runs on the study"


class WatchedStudy:
    """Looks at a search that another process runs.

    Args:
        study: The study of the search.
        config: The config of the search.
        folder: The run's folder; None: it is not known, or not seen from here.
        clock: Returns seconds.

    Attributes:
        is_over: Whether no search worked on the study at the last look.
    """

    def __init__(
        self,
        study: SearchStudy,
        config: SearchConfig,
        folder: RunFolder | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self.folder, self._clock = config, folder, clock
        self._reader = StudyReader(study, config)
        self._places: dict[int, tuple[int, Place]] = {}
        self._noted, self._noted_at = 0.0, 0.0
        self._last: Snapshot | None = None
        self.is_over = False

    @property
    def seconds_to_wait(self) -> float:
        """How long to wait until the next look."""
        return self._reader.seconds_to_wait

    def look(self) -> Snapshot:
        """The search as it is now, or was when its database last answered.

        Raises:
            StudyError: The study is gone.
        """
        try:
            facts = self._reader.read()
        except KeyError:
            raise StudyError(f"study {self._config.study.name!r} is gone") from None
        except AWAY:
            if self._last is None:
                raise
            return replace(self._last, phase="the study's database does not answer")
        self._last = self._snapshot(facts)
        return self._last

    def _snapshot(self, facts: StudyFacts) -> Snapshot:
        config = self._config
        self.is_over = not facts.is_driven
        going = [trial for trial in facts.trials if trial.state == TrialStatus.RUNNING]
        at_work = {t.number: self._at_work(t) for t in going if not is_paused(t, config)}
        return Snapshot(
            config=config,
            phase=_phase(facts, has_running=bool(at_work)),
            states={str(state): number for state, number in facts.states.items()},
            running=at_work,
            num_paused=len(going) - len(at_work),
            best=facts.best,
            seconds=self._seconds(facts),
            seconds_left=_seconds_left(facts, at_work, config),
            budget=facts.budget,
            health=facts.health,
        )

    def _seconds(self, facts: StudyFacts) -> float:
        """How long the search has run; it notes that itself with an epoch every ten seconds."""
        now = self._clock()
        if facts.seconds != self._noted or not facts.is_driven or not self._noted_at:
            self._noted, self._noted_at = facts.seconds, now
        return facts.seconds + now - self._noted_at

    def _at_work(self, trial: TrialSummary) -> TrialAtWork:
        return TrialAtWork(
            params=trial.params,
            epoch=trial.num_epochs,
            latest=trial.curve.get(trial.num_epochs),
            best=trial.best_value(self._config.study.objective.best),
            place=self._place(trial),
        )

    def _place(self, trial: TrialSummary) -> Place:
        """Where a trial trains, read anew with each epoch."""
        if self.folder is None:
            return Place()
        epoch, place = self._places.get(trial.number, (-1, Place()))
        if epoch != trial.num_epochs:
            place = _place_of(self.folder.trials / str(trial.number))
            self._places[trial.number] = (trial.num_epochs, place)
        return place


def line_of(snapshot: Snapshot) -> tuple[str, str]:
    """A snapshot as one line of a log, without its times, and these."""
    trials = (
        f"trial {number} epoch {trial.epoch}: {number_text(trial.latest)}"
        for number, trial in sorted(snapshot.running.items())
    )
    return "; ".join([snapshot.phase, *trials, snapshot.trials_text()]), snapshot.time_text()


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as plain values, as `watch --json` prints it."""
    best = snapshot.best
    return {
        "study": snapshot.config.study.name,
        "phase": snapshot.phase,
        "num_trials": snapshot.config.study.num_trials,
        "counts": dict(snapshot.states),
        "running": [
            {
                "number": number,
                "epoch": trial.epoch,
                "latest": trial.latest,
                "best": trial.best,
                "hostname": trial.place.hostname,
                "gpu_utilization": trial.place.busy,
                "params": dict(trial.params),
            }
            for number, trial in sorted(snapshot.running.items())
        ],
        "num_paused": snapshot.num_paused,
        "best": best and {"number": best[0], "value": best[1]},
        "seconds": snapshot.seconds,
        "seconds_left": snapshot.seconds_left,
        "budget_left": list(snapshot.budget),
        "health": [asdict(card) for card in snapshot.health],
    }


def _phase(facts: StudyFacts, *, has_running: bool) -> str:
    """What the search does, as far as the study tells."""
    if not facts.is_driven:
        return NOT_RUNNING
    if has_running:
        return "searching"
    if facts.verdict is not None:
        return "delivering the winner"
    if facts.compared is not None:
        return f"comparing the finalists: {facts.compared[0]} of {facts.compared[1]}"
    return "between trials" if facts.trials else "starting"


def _seconds_left(
    facts: StudyFacts, running: Mapping[int, TrialAtWork], config: SearchConfig
) -> float | None:
    """Seconds until the last trial ends, at the pace of the whole search; None: not known."""
    own = [trial for trial in facts.trials if not trial.is_carried_over]
    num_epochs = sum(trial.num_epochs for trial in own)
    if not running or not facts.is_driven or not num_epochs or not facts.seconds:
        return None
    ended = [t.num_epochs for t in facts.trials if t.state != TrialStatus.RUNNING and t.curve]
    epochs = [trial.epoch for trial in running.values()]
    num_ended = facts.states.total() - facts.states[TrialStatus.INFEASIBLE]
    left = epochs_left(config, num_epochs, num_ended, ended, epochs)
    known = [] if left is None else [left * facts.seconds / num_epochs]
    known += [] if facts.seconds_left is None else [facts.seconds_left]
    return min(known, default=None)


def _place_of(folder: Path) -> Place:
    """Where a trial trains, by the last rows of its files; as far as they are seen from here."""
    hostname = _last_row(folder / "attempts.csv").get("hostname")
    busy = _last_row(folder / "epochs.csv").get("gpu_utilization")
    return Place(hostname or None, None, float(busy) if busy else None)


def _last_row(path: Path) -> Mapping[str, str | None]:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, csv.Error):
        return {}
    return rows[-1] if rows else {}
