"""What an epoch costs with each tracker: in the search's thread, and in the tracker's.

    python benchmarks/trackers.py [--trials 20] [--epochs 20] [--mlflow URI]

CPU time, so that a busy machine changes it little. Each tracker gets the same trials by the
search's own observer, an epoch a call, as in a search whose epochs take longer than a call.
Processes of trackers, such as MLflow's server or W&B's, are not counted.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.engine.observer import SearchObserver
from hpo.run_folder import RunFolder
from hpo.tracking.search_end import SearchEnd
from hpo.tracking.tracked_search import TrackedSearch, make_trackers
from hpo.tracking.tracker import News, Tracker

SEARCH_FILE = Path(__file__).parents[1] / "search_spaces" / "digits.yaml"
PARAMS = {"optimizer.learning_rate": 0.01, "model.drop_rate": 0.1}
METRICS = (
    "train_loss", "val_loss", "val_top1", "val_top5", "val_macro_f1", "learning_rate", "seconds",
    "images_per_second", "data_seconds", "micro_batch_size", "peak_memory_bytes",
)  # fmt: skip


class Silent(SearchObserver):
    """Ignores all events, and prints notes."""

    def note(self, text: str) -> None:
        print(text)


class Empty:
    """A run without trials, as far as a tracker asks."""

    trials = ()


class Counted:
    """Notes when a tracker has been sent something, and keeps it from logging a model.

    Args:
        tracker: The tracker.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.is_sent = threading.Event()

    def send(self, number: int, news: News) -> None:
        self._tracker.send(number, news)
        self.is_sent.set()

    def finish(self, end: SearchEnd, run: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)


def measure(config: SearchConfig, num_trials: int, num_epochs: int) -> tuple[float, float]:
    """CPU-seconds of an epoch in this thread, and in the trackers' threads."""
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="trackers-")) / "digits")
    folder.make()
    trackers = [Counted(tracker) for tracker in make_trackers(config, folder)]
    for tracker in trackers:
        tracker.check()
    tracked = TrackedSearch(Silent(), trackers, config, folder)  # type: ignore[abstract]
    tracked.begin(())
    row: dict[str, Any] = dict.fromkeys(METRICS, 0.5)
    own = others = 0.0
    for number in range(-1, num_trials):  # the first one waits for the tracker to begin
        tracked.trial_started(number, PARAMS, 0)
        for epoch in range(1, num_epochs + 1):
            for tracker in trackers:
                tracker.is_sent.clear()
            everyone, mine = time.process_time(), time.thread_time()
            tracked.epoch_metrics(number, {**row, "epoch": epoch})
            spent = time.thread_time() - mine
            for tracker in trackers:
                tracker.is_sent.wait(60)
            mine = time.thread_time() - mine
            if number >= 0:
                own += spent
                others += time.process_time() - everyone - mine
        tracked.trial_ended(number, "COMPLETE", "completed", 0.5)
    tracked.finish(SearchEnd("digits", "done", None, "", "val_top1"), Empty())  # type: ignore[arg-type]
    num = num_trials * num_epochs
    return own / num, others / num


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--mlflow", default=f"sqlite:///{tempfile.mkdtemp()}/mlflow.db")
    asked = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "offline")
    cases = {
        "none": (),
        "TensorBoard": ("tracking.tensorboard=true",),
        "MLflow": (f"tracking.mlflow={asked.mlflow}",),
        "W&B offline": ("tracking.wandb=true",),
    }
    print("tracker       search's thread  its own thread    (CPU microseconds an epoch)")
    for name, settings in cases.items():
        config, _ = load_search_config(SEARCH_FILE, settings, tempfile.gettempdir())
        own, others = measure(config, asked.trials, asked.epochs)
        print(f"{name:<12} {own * 1e6:>16.1f} {others * 1e6:>15.0f}", flush=True)


if __name__ == "__main__":
    main()
