"""Compares decisions of two checkouts on the same simulated searches, to judge a change.

    python benchmarks/decision_histories.py run CHECKOUT OUT.json [--only TEXT]
        [--group main|many]
    python benchmarks/decision_histories.py compare A.json B.json
    python benchmarks/decision_histories.py list

`run` simulates some 600 searches with the hpo/ of a checkout (of `git worktree add`, say) and
writes their histories: the order in which trials trained epochs, each trial's params, curve, state
and end reason, the simulated clock, and the study's user attributes. All searches take minutes on
one core; `--only` selects searches with TEXT in their name, `--group` the searches of one group.
`compare` prints the searches that differ and the first difference of each; its exit status is 1 if
any search differs. `list` prints all names. `run` also accepts checkouts from before hpo/ had
packages.
"""

import argparse
import importlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# One core, so that sums have one order of addition. Set before NumPy is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import yaml
from simulated_searches import ARCHITECTURES, NUM_SEEDS, Search, made_up_curve, searches

History = dict[str, Any]

# `compare` reads these parts first, because they show best where two searches diverge.
DECISIONS: Final = ("epochs_in_order", "trials")
# Names of user attributes that a history holds: of the study, and of each trial.
STUDY_FACTS: Final = ("model_state", "first_levels", "limits_reached", "last_one")
TRIAL_FACTS: Final = ("end_reason", "best_value", "num_epochs")


class Checkout:
    """The functions and classes of a checkout's hpo that simulations use.

    Raises:
        SystemExit: Python imports hpo from another folder than the checkout.
    """

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        source = importlib.import_module("hpo").__file__
        if source is None or not Path(source).is_relative_to(folder):
            raise SystemExit(f"hpo is imported from {source}, not from {folder}")
        self.load_search_config = _find("hpo.config.loading", "load_search_config")
        self.search_class = _find("hpo.simulation.simulation", "SimulatedSearch")
        self.curve_class = _find("hpo.simulation.simulation", "Curve")
        self.study_class = _find("hpo.study.study", "SearchStudy")

    def config(self, values: Mapping[str, Any]) -> Any:
        """The validated config of a search file with these values."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kept.yaml"
            path.write_text(yaml.safe_dump(values, sort_keys=False))
            return self.load_search_config(path)[0]

    def driver(self, config: Any, num_slots: int, study: Any = None) -> Any:
        """A simulated search on the given study, or on a new study if `study` is None."""

        def curve_of(params: Mapping[str, Any]) -> Any:
            return self.curve_class(*made_up_curve(params, config.study.metric))

        return self.search_class(config, curve_of, num_slots, study, ARCHITECTURES)

    def reopened(self, config: Any, study: Any) -> Any:
        """The study as the next driver opens it, with the storage's content only."""
        return self.study_class(study.optuna_study, study.storage, config.study, config.space)


def _find(module: str, name: str) -> Any:
    """The object `name` of a module, or of the file that became the module's package later."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = importlib.import_module(module.rpartition(".")[0])
    return getattr(found, name)


class Watch:
    """Records the epochs that a search trains, over all of its drivers.

    Attributes:
        events: In order, [trial number, epoch] for each trained epoch, and "killed" for each kill
            of a driver.
    """

    def __init__(self) -> None:
        self.events: list[list[int] | str] = []
        self._epochs: dict[int, int] = {}

    def follow(self, driver: Any, num_steps: int) -> bool:
        """Runs a driver for `num_steps` steps; returns whether the search ended before."""
        for _ in range(num_steps):
            if not driver.step():
                return True
            for number, epoch in driver.epochs.items():
                if epoch > self._epochs.get(number, 0):
                    self.events.append([number, epoch])
                    self._epochs[number] = epoch
        return False

    def kill(self, driver: Any) -> None:
        """Records a kill, after which epochs that the study lacks are trained again."""
        self.events.append("killed")
        self._epochs = {
            trial.number: max(trial.intermediate_values, default=0)
            for trial in driver.study.optuna_study.get_trials(deepcopy=False)
        }


def history(checkout: Checkout, search: Search) -> History:
    """The history of a simulated search, from its first trial to its end."""
    config = checkout.config(search.values)
    driver, watch = checkout.driver(config, search.num_slots), Watch()
    clock, num_epochs = [], 0
    for num_steps in (*search.killed_after, sys.maxsize):
        is_over = watch.follow(driver, num_steps)
        clock.append(driver.now)
        num_epochs += driver.num_epochs
        if is_over:
            break
        watch.kill(driver)
        study = checkout.reopened(config, driver.study)
        driver = checkout.driver(config, search.num_slots, study)
    study = driver.study.optuna_study
    kept: History = _plain(
        {
            "trials": [_trial_values(trial) for trial in study.get_trials(deepcopy=False)],
            "epochs_in_order": watch.events,
            "clock": clock,
            "num_epochs": num_epochs,
            **{name: study.user_attrs.get(name) for name in STUDY_FACTS},
        }
    )
    return kept


def _trial_values(trial: Any) -> History:
    """The study's values of a trial, without times."""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "params": dict(sorted(trial.params.items())),
        "curve": dict(sorted(trial.intermediate_values.items())),
        **{name: trial.user_attrs.get(name) for name in TRIAL_FACTS},
        "values": trial.values,
        "constraints": dict(trial.constraints),
    }


def _plain(value: Any) -> Any:
    """The value as after a round trip through JSON; NaN, which differs from itself, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def run(folder: Path, out: Path, only: str, group: str) -> None:
    """Simulates the selected searches, and writes their histories to `out`.

    Raises:
        SystemExit: No search of the group has the text `only` in its name.
    """
    chosen = [s for s in searches() if only in s.name and group in ("", s.group)]
    if not chosen:
        raise SystemExit(f"no search of --group {group or 'any'} has --only {only!r} in its name")
    checkout, histories, begin = Checkout(folder), dict[str, History](), time.time()
    for search in chosen:
        try:
            histories[search.name] = history(checkout, search)
        except Exception as error:  # noqa: BLE001  errors are compared, too
            histories[search.name] = {"error": f"{type(error).__name__}: {error}"}
            print(f"{search.name}: {histories[search.name]['error']}", flush=True)
    out.write_text(json.dumps(histories))
    print(f"{len(histories)} searches in {time.time() - begin:.0f} s: {out}")


def compare(a: Mapping[str, History], b: Mapping[str, History]) -> int:
    """Prints where two files of histories differ; returns the number of differing searches."""
    num_different = 0
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            print(f"{name}: only in {'A' if name in a else 'B'}")
        elif found := first_difference(_decisions_first(a[name]), _decisions_first(b[name])):
            parts = {part for part in a[name] | b[name] if a[name].get(part) != b[name].get(part)}
            print(f"{name}\n    first: {found[:300]}\n    parts that differ: {sorted(parts)}")
        else:
            continue
        num_different += 1
    num_failed = sum("error" in a[name] and "error" in b[name] for name in a.keys() & b.keys())
    print(
        f"{num_different} of {len(a.keys() | b.keys())} searches differ;"
        f" {num_failed} fail on both sides"
    )
    return num_different


def _decisions_first(kept: History) -> History:
    return {part: kept[part] for part in dict.fromkeys([*DECISIONS, *kept]) if part in kept}


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Path and values of the first difference between two JSON values; None if they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            if key not in a or key not in b:
                return f"{path}.{key}: only in {'A' if key in a else 'B'}"
            if found := first_difference(a[key], b[key], f"{path}.{key}"):
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        for i, (one, other) in enumerate(zip(a, b, strict=False)):
            if found := first_difference(one, other, f"{path}[{i}]"):
                return found
        return None if len(a) == len(b) else f"{path}: {len(a)} in A, {len(b)} in B"
    return None if a == b else f"{path}: A {a!r}, B {b!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("checkout", type=Path)
    runs.add_argument("out", type=Path)
    runs.add_argument("--only", default="")
    runs.add_argument("--group", default="", choices=tuple(NUM_SEEDS))
    compares = commands.add_parser("compare")
    compares.add_argument("a", type=Path)
    compares.add_argument("b", type=Path)
    commands.add_parser("list")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.checkout.resolve(), arguments.out, arguments.only, arguments.group)
    elif arguments.command == "list":
        print("\n".join(search.name for search in searches()))
    else:
        a, b = (json.loads(path.read_text()) for path in (arguments.a, arguments.b))
        sys.exit(bool(compare(a, b)))


if __name__ == "__main__":
    main()
