"""Beds: tasks with known learning curves, on which searches are simulated.

lcbench  A surrogate of 34 tasks of LCBench: 7 parameters, accuracy after each of 52 epochs. It is
         smooth: what it says of near configurations is nearly equal. ../shared/surrogates/lcbench.
taskset  Recorded trainings of TaskSet, six tasks of recurrent networks on text: 8 parameters of an
         Adam-like optimizer, minus the logarithm of the validation loss at 51 moments. The curve
         of a configuration is the mean of the three nearest recorded ones in the unit cube,
         weighted by inverse distance; a diverged moment has the worst loss of its task.
         ../shared/curves/taskset.

Of the tasks in order, the even ones are for development, the odd ones for reports.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Params = dict[str, Any]

# The ranges from which TaskSet drew its configurations.
ADAM_RANGES: Final = {
    "learning_rate": (1e-8, 10.0), "beta1": (0.0, 1.0), "beta2": (0.0, 1.0),
    "epsilon": (1e-10, 1e3), "l1": (1e-8, 10.0), "l2": (1e-8, 10.0),
    "linear_decay": (1e-7, 1e-4), "exponential_decay": (1e-6, 1e-3),
}  # fmt: skip
NUM_RANDOM: Final = 20_000
NUM_NEAREST: Final = 3
ORDER: Final = (
    "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units",
    "max_dropout",
)  # fmt: skip
# A conventional first choice for SGD with momentum. The surrogate's own "defaults" are the middles
# of its ranges, no better than a random configuration.
SGD_DEFAULT: Final[Params] = {
    "batch_size": 128, "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4,
    "num_layers": 3, "max_units": 512, "max_dropout": 0.2,
}  # fmt: skip
ADAM_DEFAULT: Final[Params] = {
    "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "l1": 1e-8, "l2": 1e-8,
    "linear_decay": 1e-7, "exponential_decay": 1e-6,
}  # fmt: skip


class Task(Protocol):
    """One task of a bed.

    Attributes:
        max_epochs: The length of its curves.
        space: Its parameters, as a search file gives them.
        default: The configuration that is tried first.
        best: The best value of random or recorded configurations; median: theirs in the middle.
    """

    max_epochs: int
    space: Mapping[str, Mapping[str, Any]]
    default: Params
    best: float
    median: float

    def curve(self, params: Params) -> tuple[Array, Array]:
        """Values and seconds of each epoch, both (max_epochs,); larger values are better."""
        ...

    def delivered(self, values: Array) -> float:
        """What a training with these values (max_epochs,) delivers."""
        ...


class LcbenchTask:
    """A task of LCBench's surrogate; a training delivers its last epoch. See Task."""

    max_epochs = 52

    def __init__(self, folder: Path, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        encoding = json.loads((folder / "encoding.json").read_text())
        self._code = encoding["OpenML_task_id"][name]
        self.space = {
            p["name"]: {
                "type": "int" if p["type"] == "uniform_int" else "float",
                "low": p["lower"], "high": p["upper"], "log": p["log"],
            }
            for p in _lcbench_entries(folder)
            if p["name"] not in ("OpenML_task_id", "epoch")
        }  # fmt: skip
        self.default = dict(SGD_DEFAULT)
        values = self._random_values()
        self.best, self.median = float(values.max()), float(np.median(values))

    def curve(self, params: Params) -> tuple[Array, Array]:
        rows = np.tile([0.0, *(float(params[name]) for name in ORDER)], (self.max_epochs, 1))
        rows[:, 0] = np.arange(1, self.max_epochs + 1)
        outputs = self._run(rows).astype(float)
        return outputs[:, 1], np.maximum(np.diff(outputs[:, 0], prepend=0.0), 1e-3)

    def delivered(self, values: Array) -> float:
        return float(values[-1])

    def _run(self, rows: Array) -> Array:
        inputs = {
            "x_cat": np.full((len(rows), 1), self._code, np.int32),
            "x_cont": rows.astype(np.float32),
        }
        outputs: Array = self._session.run(None, inputs)[0]
        return outputs

    def _random_values(self) -> Array:
        rng = np.random.default_rng(12345)
        columns = [np.full(NUM_RANDOM, float(self.max_epochs))]
        for name in ORDER:
            p, u = self.space[name], rng.random(NUM_RANDOM)
            low, high, whole = p["low"], p["high"], p["type"] == "int"
            half = 0.5 if whole else 0.0
            if p["log"]:
                value = np.exp(np.log(low - half) + u * np.log((high + half) / (low - half)))
            else:
                value = low - half + u * (high - low + 2 * half)
            columns.append(np.clip(np.round(value) if whole else value, low, high))
        return self._run(np.stack(columns, 1))[:, 1]


class TasksetTask:
    """A task of TaskSet; a training delivers its best epoch. See Task."""

    max_epochs = 51

    def __init__(self, folder: Path, name: str) -> None:
        with np.load(folder / f"{name}.npz") as recorded:
            params, losses = recorded["params"], recorded["valid"].astype(float)
        worst = losses[np.isfinite(losses)].max()
        self._values: Array = -np.log(np.where(np.isfinite(losses), losses, worst))
        self.space = {
            name: {"type": "float", "low": low, "high": high, "log": not name.startswith("beta")}
            for name, (low, high) in ADAM_RANGES.items()
        }
        self._points = self._in_unit_cube(params)
        self.default = dict(ADAM_DEFAULT)
        ends = self._values.max(1)
        self.best, self.median = float(ends.max()), float(np.median(ends))

    def curve(self, params: Params) -> tuple[Array, Array]:
        point = self._in_unit_cube(np.array([[params[name] for name in ADAM_RANGES]]))
        distances = np.linalg.norm(self._points - point, axis=1)
        nearest = np.argsort(distances, kind="stable")[:NUM_NEAREST]
        weights = 1 / np.maximum(distances[nearest], 1e-9)
        values: Array = weights @ self._values[nearest] / weights.sum()
        return values, np.ones(self.max_epochs)

    def delivered(self, values: Array) -> float:
        return float(values.max())

    def _in_unit_cube(self, params: Array) -> Array:
        columns = []
        for column, entry in zip(params.T, self.space.values(), strict=True):
            scale = np.log if entry["log"] else np.asarray
            low, high = scale(entry["low"]), scale(entry["high"])
            columns.append((scale(column) - low) / (high - low))
        return np.stack(columns, 1)


TASKS: Final = {"lcbench": LcbenchTask, "taskset": TasksetTask}


def load_task(bed: str, folder: Path, name: str) -> Task:
    """A task of the bed whose data lie in `folder`."""
    return TASKS[bed](folder, name)


def regret(task: Task, values: Array) -> float:
    """(best - delivered) / (best - median) of a training with these values (max_epochs,)."""
    return (task.best - task.delivered(values)) / (task.best - task.median)


def task_names(bed: str, folder: Path, split: str) -> list[str]:
    """Names of tasks; `split` is develop, report, all, or their names or numbers in order."""
    if bed == "lcbench":
        entries = _lcbench_entries(folder)
        choices = next(p for p in entries if p["name"] == "OpenML_task_id")["choices"]
        ordered = sorted(choices, key=int)
    else:
        ordered = sorted(path.stem for path in folder.glob("*.npz"))
    named = {"develop": ordered[0::2], "report": ordered[1::2], "all": ordered}
    return named.get(split) or split.split(",")


def _lcbench_entries(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "config_space.json").read_text())[
        "hyperparameters"
    ]
    return entries
