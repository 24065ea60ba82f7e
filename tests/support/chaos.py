"""Kills a search again and again, and compares what comes of it with one that was left alone.

    python tests/support/chaos.py --kills 100

One slot, so that the decisions do not depend on timing. The driver is killed (SIGKILL, it alone:
its Ray has to notice) at random moments, most of them in the middle of a trial.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from command_line import Background, load_trials, run
from searches import search_values

NUM_TRIALS = 6


@dataclass
class Counts:
    """What came of it; all but the first three must be 0."""

    kills_made: int = 0
    kills_survived: int = 0
    kills_within_a_trial: int = 0
    trials_lost: int = 0
    trials_duplicated: int = 0
    trials_differing: int = 0
    curves_differing: int = 0
    epochs_trained_again_beyond_one_a_kill: int = 0
    zombies: int = 0
    orphan_processes: int = 0
    orphan_checkpoints: int = 0
    other_winner: int = 0

    def damage(self) -> dict[str, int]:
        """What should be 0 and is not."""
        good = ("kills_made", "kills_survived", "kills_within_a_trial")
        return {name: n for name, n in asdict(self).items() if n and name not in good}


@dataclass
class Chaos:
    """A search to be killed, beside one that is not."""

    folder: Path
    image_folder: Path
    max_epochs: int = 12
    moments: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        values = search_values(self.image_folder, self.folder / "cache")
        values["study"] = {"num_trials": NUM_TRIALS, "name": "chaos"}
        values["scheduler"] = {"min_epochs": 3, "reduction_factor": 2}
        values["resources"]["max_concurrent_trials"] = 1
        values["train"] |= {"max_epochs": self.max_epochs, "early_stopping": {"patience": None}}
        values["train"]["optimizer"]["batch_size"] = 3  # an epoch takes about half a second
        values["retrain"] = {"max_epochs": 1, "top_k": 2}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "chaos.yaml"
        self.file.write_text(yaml.safe_dump(values))

    def command(self, name: str) -> tuple[object, ...]:
        return ("search", self.file, "--output-dir", self.folder / name)

    def run_undisturbed(self) -> None:
        run(*self.command("calm"))

    def run_killed(self, num_kills: int) -> Counts:
        """Kills until so many kills are made or the search is through, then lets it end."""
        counts, run_dir = Counts(), self.folder / "wild" / "chaos"
        sessions = []
        while counts.kills_made < num_kills:
            before = num_begun(run_dir)
            driver = Background(*self.command("wild"), "--resume", log=self.folder / "log")
            sessions.append(driver.process.pid)
            # From time to time while it starts; else once it trains.
            if self.moments.random() < 0.7:
                while num_begun(run_dir) == before and driver.process.poll() is None:
                    time.sleep(0.02)
                time.sleep(self.moments.uniform(0, 2.5))
            else:
                time.sleep(self.moments.uniform(0, 8))
            if driver.process.poll() is not None:
                break
            os.kill(driver.process.pid, signal.SIGKILL)
            driver.process.wait()
            counts.kills_made += 1
            counts.kills_within_a_trial += any(
                trial.state.name == "RUNNING" and trial.intermediate_values
                for trial in safely_load(run_dir)
            )
        run(*self.command("wild"), "--resume")
        counts.kills_survived = counts.kills_made
        self._compare(counts)
        time.sleep(10)
        counts.orphan_processes = sum(len(processes_of(session)) for session in sessions)
        return counts

    def _compare(self, counts: Counts) -> None:
        calm, wild = (load_trials(self.folder / name / "chaos") for name in ("calm", "wild"))
        counts.trials_lost = max(0, len(calm) - len(wild))
        counts.trials_duplicated = max(0, len(wild) - len(calm))
        for expected, actual in zip(calm, wild, strict=False):
            same = (actual.params, actual.state, actual.value) == (
                expected.params, expected.state, expected.value,
            )  # fmt: skip
            counts.trials_differing += not same
            counts.curves_differing += repr(actual.intermediate_values) != repr(
                expected.intermediate_values
            )
            counts.zombies += actual.state.name == "RUNNING"
        run_dir = self.folder / "wild" / "chaos"
        again = sum(len(epochs) - len(set(epochs)) for epochs in begun(run_dir))
        counts.epochs_trained_again_beyond_one_a_kill = max(0, again - counts.kills_made)
        kept = list((run_dir / "trials").glob("*/best.safetensors"))
        counts.orphan_checkpoints = max(0, len(kept) - 2)
        winners = [
            (self.folder / name / "chaos" / "leaderboard.csv").read_text().splitlines()[1]
            for name in ("calm", "wild")
        ]
        counts.other_winner = int(winners[0].split(",")[0] != winners[1].split(",")[0])


def safely_load(run_dir: Path) -> list:
    return load_trials(run_dir) if (run_dir / "search.yaml").exists() else []


def begun(run_dir: Path) -> list[list[int]]:
    """Epochs begun, by trial."""
    found = []
    for path in (run_dir / "trials").glob("*/attempts.csv"):
        with path.open(newline="") as file:
            found.append([int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"]])
    return found


def num_begun(run_dir: Path) -> int:
    return sum(map(len, begun(run_dir)))


def processes_of(session: int) -> list[str]:
    """Living processes that were started with a driver, which led a session."""
    listing = subprocess.run(
        ["ps", "-eo", "sess=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=2) for line in listing.stdout.splitlines())
    return [row[2] for row in rows if row[0] == str(session) and "Z" not in row[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    arguments = parser.parse_args()
    total, made, seed = Counts(), 0, 0
    while made < arguments.kills:
        with tempfile.TemporaryDirectory() as folder:
            chaos = Chaos(
                Path(folder), arguments.image_folder.absolute(), moments=random.Random(seed)
            )
            chaos.run_undisturbed()
            counts = chaos.run_killed(arguments.kills - made)
        made, seed = made + counts.kills_made, seed + 1
        for name, number in asdict(counts).items():
            setattr(total, name, getattr(total, name) + number)
        print(f"after {made} kills: {asdict(total)}", flush=True)
    sys.exit(bool(total.damage()))


if __name__ == "__main__":
    main()
