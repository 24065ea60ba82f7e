"""Mirror: brings a tracker up to date with a run, and sends nothing twice."""

from collections.abc import Sequence

from hpo.run_folder import RunFolder
from hpo.study.trial import TrialSummary
from hpo.tracking.recorded import missing_news
from hpo.tracking.tracker import News, Sent, Tracker


class Mirror:
    """Sends to a tracker what it lacks of a run's trials.

    Args:
        tracker: Gets the trials.
        folder: The run's folder.
        metric: The metric that trials are compared by.
    """

    def __init__(self, tracker: Tracker, folder: RunFolder, metric: str) -> None:
        self._tracker, self._folder, self._metric = tracker, folder, metric
        self._sent: dict[int, Sent] | None = None  # None: the tracker has not begun

    def begin(self) -> None:
        """Opens the tracker and asks what it has, unless that is done."""
        if self._sent is None:
            self._sent = self._tracker.begin()

    def send_recorded(self, trials: Sequence[TrialSummary]) -> None:
        """Sends what the tracker lacks of these trials, as the run has recorded them."""
        for trial in trials:
            sent = self._had(trial.number)
            news = missing_news(trial, sent, self._folder, self._metric)
            if news is not None:
                self.send(trial.number, news)

    def send(self, number: int, news: News) -> None:
        """Sends what the tracker lacks of some news of a trial."""
        assert self._sent is not None, "begin comes first"
        had = self._had(number)
        if had.has_ended:
            return
        rows = [row for row in news.rows if int(row["epoch"]) > had.num_epochs]
        last = int(rows[-1]["epoch"]) if rows else had.num_epochs
        self._tracker.send(number, News(news.params, rows, news.is_paused, news.end, last))
        self._sent[number] = Sent(last, news.end is not None)

    def _had(self, number: int) -> Sent:
        assert self._sent is not None, "begin comes first"
        return self._sent.get(number, Sent())
