import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus, TrialSummary
from hpo.tracking import feed as feed_module
from hpo.tracking.feed import Feed
from hpo.tracking.mirror import Mirror
from hpo.tracking.search_end import SearchEnd
from hpo.tracking.tracker import News, Sent, TrialEnd

END = SearchEnd("tiny", "done", None, "/runs/tiny", "val_top1")
ENDED = TrialEnd("COMPLETE", "completed", 0.5)
PARAMS = {"optimizer.learning_rate": 0.1}


class Kept:
    """A tracker that keeps epochs in memory, and waits, or refuses, when it is told to."""

    name, option = "Kept", "--kept"

    def __init__(self) -> None:
        self.epochs: dict[int, list[int]] = {}
        self.ends: dict[int, str] = {}
        self.num_calls = 0
        self.is_away = self.is_finished = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.has: dict[int, Sent] = {}

    def check(self) -> None:
        pass

    def begin(self) -> dict[int, Sent]:
        return dict(self.has)

    def send(self, number: int, news: News) -> None:
        self.may_go_on.wait()
        if self.is_away:
            raise ConnectionError("no route to host")
        self.num_calls += 1
        self.epochs.setdefault(number, []).extend(row["epoch"] for row in news.rows)
        if news.end is not None:
            assert number not in self.ends
            self.ends[number] = news.end.state

    def finish(self, end: SearchEnd, run: Any) -> None:
        self.is_finished = True

    def close(self) -> None:
        pass


class Recorded:
    """A run, of which only the trials are asked."""

    def __init__(self, *trials: TrialSummary) -> None:
        self.trials = trials


def trial(number: int, num_epochs: int, state: str = "COMPLETE") -> TrialSummary:
    curve = {epoch: epoch / 100 for epoch in range(1, num_epochs + 1)}
    attributes = {"end_reason": "completed", "best_value": 0.5} if state != "RUNNING" else {}
    return TrialSummary(number, TrialStatus(state), 0.5, PARAMS, curve, attributes)


Make = Callable[[], Feed]


@pytest.fixture
def tracker() -> Kept:
    return Kept()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def make(tracker: Kept, tmp_path: Path, notes: list[str]) -> Make:
    return lambda: Feed(tracker, Mirror(tracker, RunFolder(tmp_path), "val_top1"), notes.append)


def tell(feed: Feed, number: int, *epochs: int, end: TrialEnd | None = None) -> None:
    feed.tell(number, News(PARAMS, [{"epoch": epoch} for epoch in epochs], end=end))


def test_what_waits_is_sent_together(make: Make, tracker: Kept) -> None:
    feed = make()
    tracker.may_go_on.clear()
    feed.begin(())
    for epoch in range(1, 51):
        tell(feed, 0, epoch)
        tell(feed, 1, epoch)
    tell(feed, 0, end=ENDED)
    tracker.may_go_on.set()
    assert feed.finish((END, Recorded(trial(0, 50), trial(1, 50, "RUNNING"))), 60)
    assert tracker.epochs == {0: [*range(1, 51)], 1: [*range(1, 51)]}
    assert tracker.ends == {0: "COMPLETE"}
    assert tracker.num_calls <= 4
    assert tracker.is_finished


def test_a_resumed_search_sends_nothing_twice(make: Make, tracker: Kept) -> None:
    tracker.has = {0: Sent(4, True), 1: Sent(2)}
    feed = make()
    feed.begin((trial(0, 4), trial(1, 3, "RUNNING"), trial(2, 2, "RUNNING")))
    for epoch in (2, 3, 4):  # a resumed worker reports all of its epochs
        tell(feed, 1, epoch)
    assert feed.finish((END, Recorded(trial(0, 4), trial(1, 4), trial(2, 2, "RUNNING"))), 60)
    assert tracker.epochs == {1: [3, 4], 2: [1, 2]}
    assert tracker.ends == {1: "COMPLETE"}


def test_a_tracker_that_is_away_is_said_once_and_gets_the_rest_later(
    make: Make, tracker: Kept, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "SECONDS_AWAY", 0.05)
    feed = make()
    feed.begin(())
    tell(feed, 0, 1)
    tracker.is_away = True
    for epoch in range(2, 20):
        tell(feed, 0, epoch)
        threading.Event().wait(0.02)
    assert notes == [
        "Kept gets nothing for now; the search goes on: ConnectionError: no route to host"
    ]
    tracker.is_away = False
    assert feed.finish((END, Recorded(trial(0, 21))), 60)
    assert tracker.epochs == {0: [*range(1, 22)]}


def test_a_tracker_that_stays_away_does_not_have_all(make: Make, tracker: Kept) -> None:
    feed = make()
    feed.begin(())
    tracker.is_away = True
    tell(feed, 0, 1)
    assert not feed.finish((END, Recorded(trial(0, 1))), 60)
    assert not tracker.is_finished


def test_a_tracker_that_hangs_is_left_in_time(make: Make, tracker: Kept) -> None:
    feed = make()
    feed.begin(())
    tracker.may_go_on.clear()
    tell(feed, 0, 1)
    assert not feed.finish((END, Recorded(trial(0, 1))), 0.1)
    tracker.may_go_on.set()


def test_a_slow_tracker_gets_at_the_end_what_was_left_out(
    make: Make, tracker: Kept, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MOST_ROWS", 10)
    feed = make()
    tracker.may_go_on.clear()
    feed.begin(())
    for epoch in range(1, 31):
        tell(feed, 0, epoch)
        tell(feed, 1, epoch)
    tracker.may_go_on.set()
    assert feed.finish((END, Recorded(trial(0, 30), trial(1, 30))), 60)
    assert tracker.epochs == {0: [*range(1, 31)], 1: [*range(1, 31)]}
    assert notes == ["Kept is slower than the search; it gets the rest at the end"]


def test_a_study_that_cannot_be_read_leaves_the_end_open(make: Make, tracker: Kept) -> None:
    feed = make()
    feed.begin(())
    tell(feed, 0, 1)
    assert not feed.finish(None, 60)
    assert tracker.epochs == {0: [1]}
