"""The dashboard of a large study, against bare optuna-dashboard, in a browser.

    python benchmarks/dashboard.py [--trials 10000] [--paused 60] [--reloads 5]
        [--storage postgresql+psycopg://USER@HOST/DATABASE]   (the password: PGPASSWORD)

Writes a freeze_thaw study of 20 epochs a trial to SQLite, or to an empty database of --storage:
most trials ended, some paused from the first trials on, two running. Serves it with this program
and with optuna-dashboard itself, one after the other, while both running trials train an epoch a
second. Prints seconds and bytes of the reloads that an open page makes every ten seconds, the CPU
time that the server takes for them, and how long a search waits for an epoch's report; then opens
the study's page in Debian's chromium (Playwright), and prints seconds until it shows the history.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

EPOCHS = 20
CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).parents[1]
PORT = 18_431
SECONDS_BETWEEN_RELOADS = 11  # optuna-dashboard reads long studies every ten seconds
HISTORY = ".scatterlayer .points path"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
COUNTED = "SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), :most)"
DIAGNOSIS = [
    {"tag": "overfits", "evidence": "validation loss rose from 0.3 to 0.5", "remedy": "more data"}
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--paused", type=int, default=60)
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300, help="until a page is given up")
    parser.add_argument("--storage", help="an empty database; default: SQLite")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_study(Path(folder) / "large", args.trials, args.paused, args.storage)
        print(f"{args.trials} trials of {EPOCHS} epochs, {args.paused} paused")
        results = {}
        for name in ("optuna-dashboard", "ours"):
            results[name] = measure(name, run, args.reloads, args.seconds)
            print(json.dumps({name: results[name]}), flush=True)
    bare, ours = results["optuna-dashboard"], results["ours"]
    for what in bare:
        ratio = f"{bare[what] / ours[what]:.1f}" if bare[what] and ours[what] else "-"
        print(f"{what}: optuna-dashboard {bare[what]}, ours {ours[what]}, ratio {ratio}")


def write_study(
    folder: Path, num_trials: int, num_paused: int, storage: str | None = None
) -> Path:
    """A run folder and a study whose rows are written at once, as its search would leave them."""
    import sqlalchemy

    from hpo.config.loading import load_search_config
    from hpo.run_folder import RunFolder
    from hpo.study.storage import open_storage
    from hpo.study.study import SearchStudy
    from hpo.study.tables import known_tables

    overrides = [
        f"study.num_trials={num_trials}", f"train.max_epochs={EPOCHS}",
        "scheduler={name: freeze_thaw}", "study.sampler=curves",
    ]  # fmt: skip
    if storage is not None:
        overrides.append(f"study.storage={storage}")
    file = ROOT / "search_spaces" / "digits.yaml"
    config, _ = load_search_config(file, overrides, data_dir="/nowhere")
    run = RunFolder(folder)
    run.make()
    run.save_config(config)
    url = run.storage_url(config)
    study = SearchStudy.create(url, config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    study.metadata.images = {"classes": ["a", "b"], "train": 1200, "val": 300, "test": 300}
    # Every hundredth of the first trials is paused.
    paused = {100 * i + 7 for i in range(num_paused)} if num_trials >= 100 * num_paused else set()
    study.metadata.line = sorted(paused)
    tables = known_tables(open_storage(url))
    assert tables is not None
    rows = rows_of(config, study.id, num_trials, paused)
    with tables.engine.begin() as connection:
        for table, some in (
            (tables.trials, rows["trials"]), (tables.params, rows["params"]),
            (tables.curves, rows["curves"]), (tables.values, rows["values"]),
            (tables.attributes, rows["attributes"]),
        ):  # fmt: skip
            connection.execute(table.insert(), some)
        if connection.dialect.name == "postgresql":  # whose counter has not seen these rows
            connection.execute(sqlalchemy.text(COUNTED), {"most": num_trials})
    return folder


def rows_of(
    config: Any, study_id: int, num_trials: int, paused: set[int]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of Optuna's tables by name."""
    from optuna.distributions import distribution_to_json
    from optuna.trial import FixedTrial

    from hpo.config.search_space import default_params, suggest_params

    random.seed(0)
    fixed = FixedTrial(default_params(config.train, config.space))
    suggest_params(fixed, config.space)
    spaces = {name: (d, distribution_to_json(d)) for name, d in fixed.distributions.items()}
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("trials", "params", "curves", "values", "attributes")
    }
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=num_trials)
    for number in range(num_trials):
        trial_id, runs = number + 1, number >= num_trials - 2
        state = "RUNNING" if runs or number in paused else "PRUNED" if number % 4 else "COMPLETE"
        length = EPOCHS if state == "COMPLETE" else random.choice([2, 5, 10, 20])
        length = 1 if runs else length
        began = start + timedelta(seconds=number)
        rows["trials"].append(
            {
                "trial_id": trial_id, "number": number, "study_id": study_id, "state": state,
                "datetime_start": began,
                "datetime_complete": None if state == "RUNNING" else began + timedelta(seconds=9),
            }
        )  # fmt: skip
        for name, (distribution, text) in spaces.items():
            value = drawn(distribution)
            rows["params"].append(
                {
                    "trial_id": trial_id, "param_name": name, "distribution_json": text,
                    "param_value": distribution.to_internal_repr(value),
                }
            )  # fmt: skip
        best = random.uniform(0.5, 0.95)
        for epoch in range(1, length + 1):
            value = best * (1 - 0.5**epoch) + random.gauss(0, 0.003)
            rows["curves"].append(
                {
                    "trial_id": trial_id, "step": epoch, "intermediate_value": value,
                    "intermediate_value_type": "FINITE",
                }
            )  # fmt: skip
        if state == "COMPLETE":
            rows["values"].append(
                {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
            )
        for key, attribute in attributes_of(config, state, length, best, runs=runs).items():
            rows["attributes"].append(
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(attribute)}
            )
    return rows


def drawn(distribution: Any) -> Any:
    if hasattr(distribution, "choices"):
        return random.choice(distribution.choices)
    value = random.uniform(distribution.low, distribution.high)
    step = distribution.step
    return (
        value if step is None else distribution.low + step * int((value - distribution.low) / step)
    )


def attributes_of(
    config: Any, state: str, length: int, best: float, *, runs: bool
) -> dict[str, Any]:
    """A trial's attributes as its search leaves them."""
    facts = {
        "config": config.train.model_dump(mode="json"), "config_fingerprint": "0123456789abcdef",
        "device": "cuda", "gpu": "NVIDIA H200", "hostname": "node", "seed": 0,
        "seconds": 7.5 * length, "gpu_seconds": 7.5 * length, "best_epoch": length,
        "images_per_second": 341.3, "num_epochs_trained": length, "micro_batch_size": 32,
        "peak_memory_bytes": 10**9, "diagnosis": DIAGNOSIS if length > 9 else [],
    }  # fmt: skip
    if runs:
        return {}
    if state == "RUNNING":
        return {"facts_so_far": {"epoch": length, "facts": facts}}
    reason = "completed" if state == "COMPLETE" else f"paused at epoch {length}"
    ended = {"end_reason": reason, "best_value": best, "num_epochs": length}
    return {**facts, **ended, "num_parameters": 468_723}


@contextmanager
def training(run: Path) -> Iterator[list[float]]:
    """Trains the two running trials, an epoch a second and both, and a new trial every 20.

    Gives a list of the seconds that each report of an epoch has taken.
    """
    from optuna.trial import TrialState

    from hpo.run import open_run
    from hpo.study.direct_writer import trial_writer
    from hpo.study.storage import open_storage
    from hpo.study.writer import Ending

    over, waited = threading.Event(), list[float]()
    opened = open_run(run)
    study = opened.study.optuna_study
    writer = trial_writer(open_storage(opened.folder.storage_url(opened.config)), opened.study.id)
    last = study.get_trials(deepcopy=False)[-2:]
    epochs = {trial._trial_id: len(trial.intermediate_values) for trial in last}

    def train() -> None:
        while not over.wait(1.0):
            for trial_id in list(epochs):
                epochs[trial_id] += 1
                begin = time.perf_counter()
                writer.report(trial_id, {epochs[trial_id]: 0.5})
                waited.append(time.perf_counter() - begin)
                if epochs[trial_id] < EPOCHS:
                    continue
                writer.finish(trial_id, Ending(TrialState.PRUNED, None, {"end_reason": "stopped"}))
                del epochs[trial_id]
                made = writer.create(writer.num_trials(), last[0].params, last[0].distributions)
                assert made is not None
                epochs[made[0]] = 0

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    yield waited
    over.set()
    thread.join(60)


@contextmanager
def serving(name: str, run: Path) -> Iterator[tuple[str, int]]:
    """Serves the study; gives the URL of its server and its process id once it answers."""
    from hpo.run import open_run

    bin_folder = Path(sys.executable).parent
    command = [sys.executable, str(ROOT / "run_search.py"), "dashboard", str(run)]
    if name != "ours":
        opened = open_run(run)
        command = [str(bin_folder / "optuna-dashboard"), opened.folder.storage_url(opened.config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--port", str(PORT)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    root = f"http://127.0.0.1:{PORT}"
    try:
        wait_for(f"{root}/api/meta")
        # Each reads the study once before it is measured.
        with urllib.request.urlopen(f"{root}/api/studies/1?since=&after=0") as found:
            found.read()
        yield root, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(url)


def measure(name: str, run: Path, num_reloads: int, most_seconds: float) -> dict[str, Any]:
    """What a browser sees, and what the reloads of an open page cost; None: not in time."""
    with serving(name, run) as (root, pid), training(run) as waited:
        time.sleep(SECONDS_BETWEEN_RELOADS)
        alone = statistics.median(waited)
        reloads = Reloads(root, is_ours=name == "ours")
        first = reloads.next()
        waited.clear()
        later, begin, used = [], time.monotonic(), cpu_seconds(pid)
        for _ in range(num_reloads):
            time.sleep(SECONDS_BETWEEN_RELOADS)
            later.append(reloads.next())
        share = (cpu_seconds(pid) - used) / (time.monotonic() - begin)
        beside = statistics.median(waited)
        painted, shown = open_in_browser(f"{root}/dashboard/studies/1", most_seconds)
    return {
        "first answer, s": round(first[0], 2),
        "first answer, kB": round(first[1] / 1000, 1),
        "reload, s": round(statistics.median(s for s, _ in later), 2),
        "reload, kB": round(statistics.median(n for _, n in later) / 1000, 1),
        "slowest reload, s": round(max(s for s, _ in later), 2),
        "CPU of the server, % of a core": round(100 * share, 1),
        "report of an epoch without a page, ms": round(1000 * alone, 2),
        "report of an epoch with a page, ms": round(1000 * beside, 2),
        "first contentful paint, s": painted,
        "history shown, s": shown,
    }


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_in_browser(url: str, most_seconds: float) -> tuple[float | None, float | None]:
    """Seconds until something is painted, and until the history of the trials is drawn."""
    from playwright.sync_api import TimeoutError as BrowserTimeoutError
    from playwright.sync_api import sync_playwright

    painted = shown = None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.monotonic()
        page.goto(url, wait_until="commit")
        try:
            page.wait_for_selector(HISTORY, state="attached", timeout=1000 * most_seconds)
            shown = round(time.monotonic() - start, 2)
            painted = round(page.evaluate(FIRST_PAINT) / 1000, 2)
        except BrowserTimeoutError:
            print(f"the history was not shown within {most_seconds:g} s")
        browser.close()
    return painted, shown


class Reloads:
    """Asks for a study as a page does that stays open, with gzip."""

    def __init__(self, root: str, *, is_ours: bool) -> None:
        self._url, self._is_ours = f"{root}/api/studies/1", is_ours
        self._since, self._after = "", 0

    def next(self) -> tuple[float, int]:
        """Seconds and bytes of the next answer."""
        asked = f"since={self._since}" if self._is_ours else f"after={self._after}"
        request = urllib.request.Request(
            f"{self._url}?{asked}", headers={"Accept-Encoding": "gzip"}
        )
        start = time.monotonic()
        with urllib.request.urlopen(request) as found:
            content = found.read()
            seconds = time.monotonic() - start
            is_packed = found.headers.get("Content-Encoding") == "gzip"
        told = json.loads(gzip.decompress(content) if is_packed else content)
        self._since = told.get("version", "")
        live = [t["number"] for t in told["trials"] if t["state"] in {"Running", "Waiting"}]
        self._after = min(live, default=self._after)
        return seconds, len(content)


if __name__ == "__main__":
    main()
