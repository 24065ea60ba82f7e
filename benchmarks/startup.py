"""Seconds until a command answers, and until a search begins its first epoch.

    python benchmarks/startup.py [--rounds 3]

Times the start of the first epoch in our search, with images not decoded yet and with decoded
images, and in a plain Ray Tune script (benchmarks/trial_overhead.py) with decoded images. Then
times --help, status, and a search file with an error.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trial_overhead
import yaml

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "run_search.py"))


def write_search_file(folder: Path, images: Path, cache: Path) -> Path:
    values = {
        "study": {"num_trials": 2},
        "space": {"model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5}},
        "resources": {"gpus_per_trial": 0, "max_concurrent_trials": 2},
        "train": trial_overhead.train_values(images, cache),
    }
    path = folder / "start.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def seconds_to_first_epoch(search_file: Path) -> float:
    """Seconds until a worker has begun an epoch; the search is then terminated."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        search = subprocess.Popen(
            [*PROGRAM, "search", search_file, "--output-dir", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not any(map(has_row, Path(folder).glob("*/trials/*/attempts.csv"))):
            if search.poll() is not None:
                raise RuntimeError("the search ended before it trained")
            time.sleep(0.02)
        seconds = time.time() - start
        search.terminate()
        search.wait()
    return seconds


def has_row(path: Path) -> bool:
    with path.open(newline="") as file:
        return any(csv.DictReader(file))


def seconds_of(*arguments: object) -> float:
    start = time.perf_counter()
    subprocess.run(
        [*PROGRAM, *map(str, arguments)], check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def show(name: str, rounds: int, measure: Callable[[], float]) -> None:
    seconds = [measure() for _ in range(rounds)]
    each = " ".join(f"{s:.2f}" for s in seconds)
    print(f"{name:44} {statistics.median(seconds):6.2f} s   ({each})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    sys.path.insert(0, str(Path(__file__).parents[1]))
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, cache = folder / "images", folder / "cache"
        trial_overhead.write_images(images, all_of_them=False)
        search_file = write_search_file(folder, images, cache)

        def undecoded() -> float:
            subprocess.run(["rm", "-rf", cache], check=True)
            return seconds_to_first_epoch(search_file)

        show("first epoch, images not decoded yet", rounds, undecoded)
        show("first epoch, images decoded", rounds, lambda: seconds_to_first_epoch(search_file))
        show(
            "first epoch, plain Ray Tune script",
            rounds,
            lambda: trial_overhead.measure("plain", 2, images, cache)["start"],
        )
        show("--help", rounds, lambda: seconds_of("--help"))
        output = folder / "runs"
        whole = ["search", search_file, "--output-dir", output, "--set", "train.max_epochs=1"]
        subprocess.run([*PROGRAM, *whole], check=True, capture_output=True)
        show("status", rounds, lambda: seconds_of("status", output / "start"))
        wrong = ("search", search_file, "--set", "train.max_epoch=3")
        show("search, with an error in the file", rounds, lambda: seconds_of(*wrong))


if __name__ == "__main__":
    main()
