"""Disturbs a search again and again, and compares its result with an undisturbed search.

    python tests/support/chaos.py --kills 100

Searches have one slot, so that decisions do not depend on timing. The first search suffers every
kind of fault. Then the drivers of further searches are killed at random moments, mostly in the
middle of a trial; SIGKILL hits the driver alone, and its Ray has to notice.
"""

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import optuna
import yaml
from command_line import PATIENCE_SECONDS, Background, descendants, load_trials, run
from digits import write_image_folder
from postgres import PostgresServer
from searches import search_values

NUM_TRIALS, MAX_EPOCHS, TOP_K = 8, 12, 2
MOST_AFTER_TRIALS = 3  # kills of a search whose trials have all ended
SECONDS_TO_END = 120.0  # in which Ray's processes must end after their driver
MARK = "CHAOS_MARK"  # environment variable of every process that is started here
INTERRUPTING = ("SIGKILL", "SIGINT", "SIGTERM", "full disk", "worker killed", "node removed")


@dataclass
class Counts:
    """Counts of kills and of damage; all but the first three must be 0."""

    kills_survived: int = 0
    kills_made: int = 0
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

    def __add__(self, other: "Counts") -> "Counts":
        names = [field.name for field in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def damage(self) -> dict[str, int]:
        """The counts that should be 0 and are not, by name."""
        names = [field.name for field in fields(self)][3:]
        found = {name: getattr(self, name) for name in names if getattr(self, name)}
        lost = self.kills_made - self.kills_survived
        return found | ({"kills_not_survived": lost} if lost else {})

    def table(self) -> str:
        lines = [f"{'kills survived / kills made':42} {self.kills_survived} / {self.kills_made}"]
        names = [field.name for field in fields(self)][2:]
        lines += [f"{name.replace('_', ' '):42} {getattr(self, name)}" for name in names]
        return "\n".join(lines)


class Chaos:
    """An undisturbed search, with which disturbed searches are compared."""

    def __init__(self, folder: Path, image_folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        values = search_values(image_folder, folder / "cache")
        values["study"] = {"num_trials": NUM_TRIALS, "name": "chaos"}
        values["scheduler"] = {"name": "asha", "min_epochs": 3, "reduction_factor": 2}
        values["resources"]["max_concurrent_trials"] = 1
        values["train"] |= {"max_epochs": MAX_EPOCHS, "early_stopping": {"patience": None}}
        values["train"]["optimizer"]["batch_size"] = 3  # an epoch takes about half a second
        values["retrain"] = {"max_epochs": 2, "top_k": TOP_K, "seeds": 0}
        self.file = folder / "chaos.yaml"
        self.file.write_text(yaml.safe_dump(values))
        run("search", self.file, "--output-dir", folder / "calm")
        self.calm = load_trials(folder / "calm" / "chaos")
        self.winner = first_of_leaderboard(folder / "calm" / "chaos")


class Victim:
    """A search that is disturbed and resumed; a context manager that kills its processes."""

    def __init__(
        self, chaos: Chaos, output_dir: Path, moments: random.Random, storage: str | None = None
    ) -> None:
        self.chaos, self.moments, self.storage = chaos, moments, storage
        self.run_dir = output_dir / "chaos"
        self.command = ["search", chaos.file, "--output-dir", output_dir, "--resume"]
        self.environment = {MARK: uuid.uuid4().hex}
        self.log = chaos.folder / "log"
        self.driver: Background | None = None
        self.counts, self.faults = Counts(), list[str]()
        self._begun_at_start = self._begun_before = 0

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in marked_processes(self.environment[MARK]):
            os.kill(pid, signal.SIGKILL)

    # Starting and waiting

    def start(self, *options: object) -> None:
        """Starts the driver in the background."""
        if self.storage is not None:
            options = (*options, "--storage", self.storage)
        self._begun_at_start = self._begun_before = self.num_begun()
        self.driver = Background(
            *self.command, *options, log=self.log, environment=self.environment
        )

    def wait_until_it_trains(self) -> bool:
        """Waits until an epoch begins, then for a random time; False if the driver ended."""
        assert self.driver is not None
        while self.num_begun() == self._begun_before:
            if self.driver.process.poll() is not None:
                return False
            time.sleep(0.02)
        time.sleep(self.moments.uniform(0, 2.5))
        self._begun_before = self.num_begun()
        return self.driver.process.poll() is None

    def wait_for_end(self) -> None:
        assert self.driver is not None
        assert self.driver.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()

    # Faults

    def kill_driver(self) -> None:
        """Kills the driver, and no other process, by SIGKILL."""
        assert self.driver is not None
        self.driver.process.kill()
        self.driver.process.wait()
        trains = self.num_begun() > self._begun_at_start
        within = [t for t in self.trials() if is_within(t)] if trains else []
        self._suffered("SIGKILL")
        self.counts.kills_made += 1
        self.counts.kills_within_a_trial += bool(within)
        where = "trial {0.number} after epoch {0.last_step}".format(*within) if within else "else"
        self.chaos.say(f"  kill {self.counts.kills_made}: {where}")

    def interrupt(self, name: str) -> None:
        """Sends SIGINT or SIGTERM; the driver must end and say how to resume."""
        assert self.driver is not None
        self.driver.process.send_signal(getattr(signal, name))
        assert self.driver.process.wait(PATIENCE_SECONDS) == 1, self.log.read_text()
        said = self.log.read_text()
        assert said.splitlines()[-1].startswith("error: interrupted; continue with --resume"), said
        assert "Traceback" not in said
        self._suffered(name)

    def fill_disk(self) -> None:
        """Fills the disk of the run until the search has given up, then frees it."""
        assert self.driver is not None
        ballast = self.run_dir.parent / "ballast"
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=64K"], check=False,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        assert self.driver.process.wait(PATIENCE_SECONDS) == 1, self.log.read_text()
        said = self.log.read_text()
        assert re.search(r"no space left on the disk of .*; free some, then go on", said), said
        assert "Traceback" not in said
        states = {trial.state.name for trial in self.trials()}
        assert "RUNNING" in states, states
        assert "FAIL" not in states
        ballast.unlink()
        self._suffered("full disk")

    def kill_worker(self) -> None:
        assert self.driver is not None
        workers = [p for p, name in self.driver.descendants().items() if is_trial(name)]
        assert len(workers) == 1, self.driver.descendants()
        os.kill(workers[0], signal.SIGKILL)
        self._suffered("worker killed")

    def stop_database(self, server: PostgresServer, seconds: float) -> None:
        assert self.driver is not None
        server.stop()
        self.driver.wait_for(lambda: "database does not answer, waiting" in self.log.read_text())
        time.sleep(seconds)
        server.start()
        self._suffered("database stopped")

    def remove_node(self, cluster: "LocalCluster") -> None:
        cluster.remove_the_one_that_trains()
        self._suffered("node removed")

    def _suffered(self, fault: str) -> None:
        self.faults.append(fault)
        if fault != "SIGKILL":
            self.chaos.say(f"  {fault}")

    # Results

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        exists = self.storage is not None or (self.run_dir / "search.yaml").exists()
        return load_trials(self.run_dir, self.storage) if exists else []

    def _processes_left(self) -> list[str]:
        """Command lines of processes that do not end by themselves.

        Ray's agents take up to 75 seconds to end if Ray's start was cut short.
        """
        mark, end = self.environment[MARK], time.monotonic() + SECONDS_TO_END
        while (pids := marked_processes(mark)) and time.monotonic() < end:
            time.sleep(0.5)
        return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids]

    def has_no_trial_left(self) -> bool:
        """Whether all trials have ended; then only the winner's retraining and delivery remain."""
        trials = self.trials()
        return len(trials) == NUM_TRIALS and all(t.state.is_finished() for t in trials)

    def num_begun(self) -> int:
        """Number of epochs begun in all attempts, the retraining's included."""
        return sum(map(len, self._begun("*/*/attempts.csv")))

    def _begun(self, pattern: str) -> list[list[str]]:
        """Epochs begun, and places within epochs, such as 3.12, from which they went on."""
        found = []
        for path in self.run_dir.glob(pattern):
            try:
                rows = list(csv.DictReader(path.read_text().splitlines()))
            except FileNotFoundError:  # the delivery has moved the retraining's folder
                continue
            found.append([row["epoch"] for row in rows if row["epoch"]])
        return found

    def compared(self) -> Counts:
        """The counts of damage, from a comparison with the undisturbed search."""
        calm, counts = self.chaos.calm, self.counts
        counts.kills_survived = counts.kills_made  # an unsurvived kill has failed an assertion
        found = self.trials()
        counts.trials_lost = max(0, len(calm) - len(found))
        counts.trials_duplicated = max(0, len(found) - len(calm))
        for expected, actual in zip(calm, found, strict=False):
            counts.trials_differing += any(
                repr(getattr(actual, name)) != repr(getattr(expected, name))
                for name in ("params", "state", "value")
            )
            counts.curves_differing += repr(sorted(actual.intermediate_values.items())) != repr(
                sorted(expected.intermediate_values.items())
            )
            counts.zombies += actual.state.name == "RUNNING"
        begun = [
            [e for e in entries if e.isdigit()] for entries in self._begun("trials/*/attempts.csv")
        ]
        again = sum(len(epochs) - len(set(epochs)) for epochs in begun)
        allowed = sum(fault in INTERRUPTING for fault in self.faults)
        counts.epochs_trained_again_beyond_one_a_kill = max(0, again - allowed)
        kept = list((self.run_dir / "trials").glob("*/best.safetensors"))
        counts.orphan_checkpoints = max(0, len(kept) - TOP_K)
        counts.other_winner = int(first_of_leaderboard(self.run_dir) != self.chaos.winner)
        left = self._processes_left()
        counts.orphan_processes = len(left)
        for name in left:
            self.chaos.say(f"  left: {name}")
        return counts


class LocalCluster:
    """A Ray cluster on this machine: a head node without CPUs, and two nodes with one CPU each."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ |= environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 40}
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        self.address: str = self._cluster.address

    def __enter__(self) -> "LocalCluster":
        return self

    def __exit__(self, *exc: object) -> None:
        self._cluster.shutdown()
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", MARK):
            del os.environ[name]

    def remove_the_one_that_trains(self) -> None:
        """Removes the node that runs a trial, as abruptly as a power cut."""
        for node in self._nodes:
            raylet = node.all_processes["raylet"][0].process.pid
            if any(map(is_trial, descendants(raylet).values())):
                self._cluster.remove_node(node, allow_graceful=False)
                return
        raise AssertionError("no node trains")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 100 MB in memory; only root may mount one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_within(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether the trial runs and has trained some of its epochs, but not all."""
    return trial.state.name == "RUNNING" and 0 < (trial.last_step or 0) < MAX_EPOCHS


def is_trial(command_line: str) -> bool:
    """Whether the command line is that of a Ray worker which runs trials."""
    return "ray::Resource" in command_line


def first_of_leaderboard(run_dir: Path) -> str:
    with (run_dir / "leaderboard.csv").open(newline="") as file:
        return next(csv.DictReader(file))["number"]


def marked_processes(mark: str) -> list[int]:
    """Living processes that were started with the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # the process has ended meanwhile
            continue
    return found


def suffer_everything(
    chaos: Chaos, output_dir: Path, moments: random.Random, outage_seconds: float
) -> Counts:
    """Runs one search under three kills of its driver and one fault of each other kind.

    The study is in PostgreSQL; `output_dir` is a small disk of its own.
    """
    with ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.remove)
        victim = stack.enter_context(Victim(chaos, output_dir, moments, server.url))
        for _ in range(2):
            victim.start()
            assert victim.wait_until_it_trains()
            victim.kill_driver()
        victim.start()
        assert victim.wait_until_it_trains()
        victim.kill_worker()
        assert victim.wait_until_it_trains()
        victim.stop_database(server, outage_seconds)
        assert victim.wait_until_it_trains()
        victim.interrupt("SIGINT")
        victim.start()
        assert victim.wait_until_it_trains()
        victim.interrupt("SIGTERM")
        victim.start()
        assert victim.wait_until_it_trains()
        victim.fill_disk()
        victim.start()
        time.sleep(moments.uniform(0, 8))  # while the driver starts
        victim.kill_driver()
        with LocalCluster(victim.environment) as cluster:
            victim.start("--ray-address", cluster.address)
            assert victim.wait_until_it_trains()
            victim.remove_node(cluster)
            assert victim.wait_until_it_trains()
            victim.wait_for_end()
        return victim.compared()


def suffer_kills(
    chaos: Chaos, output_dir: Path, moments: random.Random, most_kills: int
) -> Counts:
    """Kills the driver a number of times, or until the search has ended, then lets it end."""
    num_after_trials = 0
    with Victim(chaos, output_dir, moments) as victim:
        while victim.counts.kills_made < most_kills:
            victim.start()
            # From time to time while it starts; else once it trains.
            if moments.random() < 0.2:
                time.sleep(moments.uniform(0, 8))
            elif not victim.wait_until_it_trains():
                break
            assert victim.driver is not None
            if victim.driver.process.poll() is not None:
                break
            victim.kill_driver()
            num_after_trials += victim.has_no_trial_left()
            if num_after_trials == MOST_AFTER_TRIALS:
                victim.start()
                break
        else:
            victim.start()
        victim.wait_for_end()
        return victim.compared()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--outage-seconds", type=float, default=5, help="of the database")
    arguments = parser.parse_args()
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", flush=True)

    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        images = write_image_folder(folder / "images")
        chaos = Chaos(folder, images, say)
        say(f"left alone: {len(chaos.calm)} trials, winner {chaos.winner}")
        disk = stack.enter_context(small_disk(folder / "disk"))
        total = suffer_everything(chaos, disk, random.Random(0), arguments.outage_seconds)
        say(f"every fault once\n{total.table()}")
        seed = 0
        while total.kills_made < arguments.kills:
            seed += 1
            left = arguments.kills - total.kills_made
            total += suffer_kills(chaos, folder / f"wild-{seed}", random.Random(seed), left)
            say(f"after {seed} more searches\n{total.table()}")
    sys.exit(bool(total.damage()))


if __name__ == "__main__":
    main()
