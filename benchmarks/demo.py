"""What the demo's search gains over its default configuration, over many seeds.

    python benchmarks/demo.py [--seeds 20] [--first-seed 0] [--search-file FILE]
        [--work-dir DIR] [-- OPTION_OF_SEARCH ...]

Each row is a whole search of search_spaces/digits.yaml on scikit-learn's digits, as `run_search.py
demo` runs it, with study.seed and train.seed set; the data and their splits stay the same. A run
that --work-dir holds already is read, or resumed; without --work-dir the runs are removed.

gain  Of the winner over the default, both trained anew on fresh seeds; with its 95 % interval.
test  Top-1 of the delivered model on 297 test images, which no decision has seen.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Outcome:
    """What one search delivers.

    Attributes:
        gain: The winner's gain over the default in val_top1, and the ends of its interval; None:
            the default itself was delivered.
        test: The delivered model's top-1 on test images.
    """

    gain: tuple[float, float, float] | None
    test: float


def read_outcome(run: Path) -> Outcome:
    """What the search of a run folder delivered."""
    metrics = json.loads((run / "best" / "metrics.json").read_text(encoding="utf-8"))
    with (run / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        winner = next(csv.DictReader(file))
    values = [winner[name] for name in ("gain", "gain_low", "gain_high")]
    gain = None
    if all(values):
        gain = (float(values[0]), float(values[1]), float(values[2]))
    return Outcome(gain, metrics["test"]["top1"])


def search(search_file: Path, images: Path, folder: Path, seed: int, options: list[str]) -> None:
    """Runs a whole search as a command of its own.

    Raises:
        CalledProcessError: The search failed; what it printed stands beside its run folder.
    """
    log, resume = folder / f"{seed}.log", ["--resume"] * (folder / str(seed)).is_dir()
    with log.open("w", encoding="utf-8") as file:
        subprocess.run(
            [sys.executable, str(ROOT / "run_search.py"), "search", str(search_file),
             "--data-dir", str(images), "--output-dir", str(folder), "--study-name", str(seed),
             "--set", f"study.seed={seed}", "--set", f"train.seed={seed}", *resume, *options],
            stdout=file, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    from hpo.cli.demo import IMAGES_NAME, write_digits

    images = folder / IMAGES_NAME
    write_digits(images)
    print(f"{'seed':>4} {'gain':>8} {'low':>8} {'high':>8} {'test':>7} {'seconds':>8}", flush=True)
    outcomes = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        run, begin, seconds = folder / str(seed), time.monotonic(), "-"
        if not (run / "report.html").is_file():
            search(arguments.search_file, images, folder, seed, arguments.options)
            seconds = f"{time.monotonic() - begin:.0f}"
        outcome = read_outcome(run)
        outcomes.append(outcome)
        gain = "".join(f" {value:+8.4f}" for value in outcome.gain or ()) or f" {'none':>26}"
        print(f"{seed:>4}{gain} {outcome.test:7.4f} {seconds:>8}", flush=True)
    above = sum(outcome.gain is not None and outcome.gain[1] > 0 for outcome in outcomes)
    print(
        f"interval above zero: {above} of {len(outcomes)}; "
        f"lowest test top-1 {min(outcome.test for outcome in outcomes):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--search-file", type=Path, default=ROOT / "search_spaces" / "digits.yaml")
    parser.add_argument("--work-dir", type=Path)
    parser.add_argument("options", nargs="*", help="Options of the command search, after --.")
    arguments = parser.parse_args()
    if arguments.work_dir is not None:
        arguments.work_dir.mkdir(parents=True, exist_ok=True)
        measure(arguments, arguments.work_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
