"""TrackedSearch: the observer that passes a search's events on to its trackers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Value
from hpo.engine.observer import Place, SearchObserver
from hpo.errors import StudyError
from hpo.run import Run
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from hpo.tracking.feed import Feed, said_by
from hpo.tracking.mirror import Mirror
from hpo.tracking.mlflow_runs import MlflowRuns
from hpo.tracking.search_end import SearchEnd
from hpo.tracking.tensorboard_events import TensorBoardEvents
from hpo.tracking.tracker import News, Row, Tracker, TrialEnd
from hpo.tracking.wandb_runs import WandbRuns

SECONDS_TO_END: Final = 120.0  # for what is left when a search ends
SECONDS_AFTER_A_SIGNAL: Final = 15.0


def make_trackers(config: SearchConfig, folder: RunFolder) -> tuple[Tracker, ...]:
    """The trackers that a config asks for."""
    asked = config.tracking
    makers = (
        (asked.tensorboard, TensorBoardEvents),
        (asked.mlflow, MlflowRuns),
        (asked.wandb, WandbRuns),
    )
    return tuple(make(config, folder) for is_asked, make in makers if is_asked)


def check_trackers(config: SearchConfig, folder: RunFolder) -> None:
    """Raises InputError if a tracker cannot be used."""
    for tracker in make_trackers(config, folder):
        tracker.check()


def send_run(run: Run, config: SearchConfig) -> tuple[str, ...]:
    """Sends what the trackers of a config lack of a run; returns their names.

    Args:
        run: The run, over which no search works.
        config: Names the trackers; else as the run's config.

    Raises:
        StudyError: Something could not be sent.
    """
    trackers = make_trackers(config, run.folder)
    end = SearchEnd.of(run, "done" if run.is_complete else "interrupted")
    for tracker in trackers:
        mirror = Mirror(tracker, run.folder, config.study.metric)
        try:
            mirror.begin()
            mirror.send_recorded(run.trials)
            tracker.finish(end, run)
            tracker.close()
        except Exception as error:  # noqa: BLE001  a tracker's library may raise anything
            raise StudyError(f"{tracker.name} did not get all: {said_by(error)}") from None
    return tuple(tracker.name for tracker in trackers)


class TrackedSearch(SearchObserver):
    """Passes all events on to another observer, and those of trials to the trackers.

    Args:
        observer: Hears of all events.
        trackers: What to show the search in.
        config: The config of the search.
        folder: The run's folder.
    """

    def __init__(
        self,
        observer: SearchObserver,
        trackers: Sequence[Tracker],
        config: SearchConfig,
        folder: RunFolder,
    ) -> None:
        self._observer, self._folder = observer, folder
        mirrors = [Mirror(tracker, folder, config.study.metric) for tracker in trackers]
        self._feeds = [
            Feed(tracker, mirror, observer.note)
            for tracker, mirror in zip(trackers, mirrors, strict=True)
        ]
        self._params: dict[int, Mapping[str, Value]] = {}

    def begin(self, trials: Sequence[TrialSummary]) -> None:
        """Begins to feed the trackers; `trials` are those that the study has."""
        self._params = {trial.number: trial.params for trial in trials}
        for feed in self._feeds:
            feed.begin(trials)

    def finish(self, end: SearchEnd, run: Run | None) -> None:
        """Sends the trackers what is missing, and the end, within a limit of time.

        Args:
            end: How the search ended.
            run: The run; None: its study cannot be read.
        """
        is_signalled = end.state == "interrupted"
        seconds = SECONDS_AFTER_A_SIGNAL if is_signalled else SECONDS_TO_END
        for feed in self._feeds:
            self._observer.phase(f"sending what is left to {feed.tracker.name}")
            if not feed.finish(None if run is None else (end, run), seconds):
                self._observer.note(
                    f"{feed.tracker.name} does not have all of the search; "
                    f"`track {self._folder.path} {feed.tracker.option}` sends what is missing"
                )

    def _tell(
        self, number: int, *rows: Row, is_paused: bool = False, end: TrialEnd | None = None
    ) -> None:
        if number in self._params:  # else it is ruled out, not started, and is sent at the end
            for feed in self._feeds:
                feed.tell(number, News(self._params[number], rows, is_paused, end))

    def phase(self, text: str) -> None:
        self._observer.phase(text)

    def step(self, done: int, total: int) -> None:
        self._observer.step(done, total)

    def note(self, text: str) -> None:
        self._observer.note(text)

    def earlier_trials(
        self, states: Mapping[str, int], best: tuple[int, float] | None, num_epochs: int
    ) -> None:
        self._observer.earlier_trials(states, best, num_epochs)

    def study_opened(self, study: SearchStudy) -> None:
        self._observer.study_opened(study)

    def slots(self, num: int) -> None:
        self._observer.slots(num)

    def trial_started(self, number: int, params: Mapping[str, Value], num_epochs: int) -> None:
        self._params[number] = params
        self._tell(number)
        self._observer.trial_started(number, params, num_epochs)

    def epoch_metrics(self, number: int, row: Mapping[str, Any]) -> None:
        self._tell(number, row)
        self._observer.epoch_metrics(number, row)

    def epoch(self, number: int, epoch: int, value: float) -> None:
        self._observer.epoch(number, epoch, value)

    def trains_at(self, number: int, place: Place) -> None:
        self._observer.trains_at(number, place)

    def trial_paused(self, number: int) -> None:
        self._tell(number, is_paused=True)
        self._observer.trial_paused(number)

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        self._tell(number, end=TrialEnd(state, reason, value))
        self._params.pop(number, None)
        self._observer.trial_ended(number, state, reason, value)

    def finalist_trained(self, number: int, seed: int, value: float | None) -> None:
        self._observer.finalist_trained(number, seed, value)

    def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
        self._observer.retrain_epoch(row, max_epochs)
