"""The driver's own cost of a search, measured with trials that train nothing.

    python benchmarks/driver_throughput.py [--trials 1000] [--rounds 3] [--long 10000]

Compares trials a second of our search (study in SQLite, every report stored before the decision
on it) and of a plain Ray Tune script (function trainable, OptunaSearch, reuse_actors, loggers
off). Both have a random sampler, two slots and three reports a trial, and alternate. Then runs
one long study of ours with 20 reports a trial, and prints its memory and the milliseconds of each
decision as the study grows; at last a study with the TPE sampler.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPORTS = 3
SPACE = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5},
}


def trains_nothing(num_reports: int) -> Any:
    """The class of a worker that reports `num_reports` epochs without training."""
    from ray import tune

    from hpo.execution.worker import REPORT, WORN_OUT, TrialTask
    from hpo.study.trial import TrialReport

    class TrainsNothing(tune.Trainable):
        """Takes TrialWorker's place."""

        def setup(self, config: dict[str, Any]) -> None:
            self.task: TrialTask | None = None

        def assign(self, task: TrialTask) -> None:
            self.task, self.epoch = task, 0

        def step(self) -> dict[str, Any]:
            if self.task is None:
                return {REPORT: None, WORN_OUT: False}
            self.epoch += 1
            number = self.task.number
            reason = "completed" if self.epoch == num_reports else None
            row = {"epoch": self.epoch, "val_top1": 1 - 1 / (number % 97 + self.epoch + 1)}
            if reason is not None:
                self.task = None
            return {REPORT: TrialReport(number, (row,), reason), WORN_OUT: False}

    return TrainsNothing


class Watch:
    """An observer that counts ended trials and notes the driver's memory every 500 trials."""

    def __init__(self) -> None:
        self.num_ended = 0
        self.memory: list[int] = []

    def trial_ended(self, number: int, state: str, reason: str, value: float | None) -> None:
        self.num_ended += 1
        if self.num_ended % 500 == 0:
            self.memory.append(resident_bytes())

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def run_ours(
    num_trials: int, num_reports: int, folder: Path, sampler: str = "random"
) -> dict[str, Any]:
    """Runs our search with workers that train nothing; returns its times, memory and file size."""
    from hpo.config.schema import SearchConfig
    from hpo.config.search_space import default_params
    from hpo.execution.cluster import TrialResources, connected
    from hpo.execution.tuning import run_trials
    from hpo.run_folder import RunFolder
    from hpo.study.study import SearchStudy
    from sgformer.data.image_cache import ImagesId

    config = SearchConfig.model_validate(
        {
            "study": {"name": "nothing", "num_trials": num_trials, "sampler": sampler},
            "scheduler": {"name": "none"},
            "space": SPACE,
            "train": {"data": {"data_dir": str(folder)}, "max_epochs": num_reports},
        }
    )
    run, watch, decisions = RunFolder(folder / "nothing"), Watch(), timed_decisions()
    run.make()
    with connected(None):
        study = SearchStudy.create(run.storage_url(config), config.study, config.space)
        study.enqueue_first_trials(default_params(config.train, config.space))
        start = time.perf_counter()
        resources, worker = TrialResources(1, 0.0, 2), trains_nothing(num_reports)
        run_trials(config, run, study, ImagesId("", ""), resources, watch, worker)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "decisions": decisions,
        "memory": watch.memory,
        "bytes": (run.path / "study.db").stat().st_size,
    }


def timed_decisions() -> dict[str, list[float]]:
    """The seconds of each later decision, writes to the study included, by method name."""
    from hpo.engine.engine import Engine
    from hpo.samplers.proxy_study import ProxyStudy

    seconds: dict[str, list[float]] = {}

    def timed(kind: type, name: str) -> None:
        function, own = getattr(kind, name), seconds.setdefault(name, [])

        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            if result is not None or name != "next_trial":  # None: no trial was proposed
                own.append(time.perf_counter() - start)
            return result

        setattr(kind, name, call)

    for name in ("next_trial", "on_report", "on_end"):
        timed(Engine, name)
    timed(ProxyStudy, "draw")  # the sampler's share of next_trial's time
    return seconds


def run_plain(num_trials: int, num_reports: int, folder: Path) -> dict[str, Any]:
    """Runs the plain Ray Tune script that users write themselves."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def trains_nothing(config: dict[str, Any]) -> None:
        for epoch in range(1, num_reports + 1):
            tune.report({"val_top1": 1 - 1 / (epoch + 1 + config["drop_rate"])})

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    space = {"learning_rate": tune.loguniform(1e-5, 1e-2), "drop_rate": tune.uniform(0.0, 0.5)}
    search = OptunaSearch(
        metric="val_top1", mode="max", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    start = time.perf_counter()
    tune.Tuner(
        tune.with_resources(trains_nothing, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_top1", mode="max", num_samples=num_trials, search_alg=search,
            reuse_actors=True, max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()  # fmt: skip
    seconds = time.perf_counter() - start
    ray.shutdown()
    return {"seconds": seconds}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_process(
    which: str, num_trials: int, num_reports: int, sampler: str = "random"
) -> dict[str, Any]:
    """Runs one side, `ours` or `plain`, in a fresh process; returns its measurements."""
    side = (which, str(num_trials), str(num_reports), sampler)
    command = [sys.executable, __file__, "--side", *side]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_side(which: str, num_trials: str, num_reports: str, sampler: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        how = (int(num_trials), int(num_reports), Path(folder))
        result = run_plain(*how) if which == "plain" else run_ours(*how, sampler)
    print(json.dumps(result))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def print_decisions(decisions: dict[str, list[float]], num_parts: int) -> None:
    for name, seconds in decisions.items():
        size = max(1, len(seconds) // num_parts)
        parts = [seconds[i : i + size] for i in range(0, size * num_parts, size)]
        text = "  ".join(
            f"{1000 * statistics.median(part):.1f} / {1000 * percentile(part, 0.99):.1f}"
            for part in parts
            if part
        )
        print(f"  {name:11} ms, p50 / p99, by {num_parts}ths of the study: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=10000)
    parser.add_argument("--tpe", type=int, default=2000, help="trials of a study by TPE")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(*arguments.side)
        return
    print(f"{arguments.trials} trials of {REPORTS} reports, 2 slots, {os.cpu_count()} cores")
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(arguments.rounds):
        for which, values in rates.items():
            result = in_process(which, arguments.trials, REPORTS)
            values.append(arguments.trials / result["seconds"])
            print(f"  {which:5} {values[-1]:6.1f} trials/s", flush=True)
            if which == "ours":
                print_decisions(result["decisions"], 1)
    if arguments.rounds:
        ratio = statistics.median(rates["ours"]) / statistics.median(rates["plain"])
        print(f"ours / plain, medians: {ratio:.2f}")
    if arguments.long:
        print(f"{arguments.long} trials of 20 reports, ours")
        result = in_process("ours", arguments.long, 20)
        print(f"  {arguments.long / result['seconds']:.1f} trials/s")
        print_decisions(result["decisions"], 5)
        print("  MiB, every 500 trials:", *(m // 2**20 for m in result["memory"]))
        print(f"  study.db: {result['bytes'] / 2**20:.1f} MiB")
    if arguments.tpe:
        print(f"{arguments.tpe} trials of {REPORTS} reports, ours, sampler: tpe")
        result = in_process("ours", arguments.tpe, REPORTS, "tpe")
        print(f"  {arguments.tpe / result['seconds']:.1f} trials/s")
        print_decisions(result["decisions"], 5)


if __name__ == "__main__":
    main()
