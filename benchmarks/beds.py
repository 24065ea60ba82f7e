"""Beds: tasks with known learning curves, on which searches are simulated.

lcbench  A surrogate of 34 tasks of LCBench: 7 parameters, accuracy after each of 52 epochs. It is
         smooth: what it says of near configurations is nearly equal. ../shared/surrogates/lcbench.
taskset  Recorded trainings of TaskSet, six tasks of recurrent networks on text: 8 parameters of an
         Adam-like optimizer, minus the logarithm of the validation loss at 51 moments. The curve
         of a configuration is the mean of the three nearest recorded ones in the unit cube,
         weighted by inverse distance; a diverged moment has the worst loss of its task.
         ../shared/curves/taskset. Its noise is not known: there is one training of each.
own      Recorded trainings of our own SG-Formers with our trainer and space (9 parameters) on
         digits and on Fashion-MNIST: val top-1 in per cent after each of 16 epochs. The curve of a
         configuration is made as TaskSet's, in the unit cube with a stretched learning rate and
         the sizes in order; second seeds of a third of the configurations give the noise.
         curves/own.json.gz, which record_curves.py makes.

Of the tasks in order, the even ones are for development, the odd ones for reports. Regret is
(best - delivered) / (best - median), or with the minimum for the median, as papers have it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from nearest_curves import Array, NearestCurves
from own_bed import OwnTask, Params, own_names

Epoch = Literal["last", "best", "test"]
Normalisation = Literal["median", "min"]

# The ranges from which TaskSet drew its configurations.
ADAM_RANGES: Final = {
    "learning_rate": (1e-8, 10.0), "beta1": (0.0, 1.0), "beta2": (0.0, 1.0),
    "epsilon": (1e-10, 1e3), "l1": (1e-8, 10.0), "l2": (1e-8, 10.0),
    "linear_decay": (1e-7, 1e-4), "exponential_decay": (1e-6, 1e-3),
}  # fmt: skip
NUM_RANDOM: Final = 20_000
NUM_CURVES: Final = 2_000  # of them, where all epochs are asked for
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
        delivers: The epoch that a training delivers: its last, or its best.
        max_epochs: The length of its curves.
        space: Its parameters, as a search file gives them.
        default: The configuration that is tried first.
        best: The best value of random or recorded configurations; median: theirs in the middle.
        params: The recorded configurations; None: the curve of any is known.
    """

    delivers: Literal["last", "best"]
    max_epochs: int
    space: Mapping[str, Mapping[str, Any]]
    default: Params
    best: float
    median: float
    params: Sequence[Params] | None

    def curve(self, params: Params) -> tuple[Array, Array]:
        """Values and seconds of each epoch, both (max_epochs,); larger values are better."""
        ...

    def delivered(self, values: Array) -> float:
        """What a training with these values (max_epochs,) delivers."""
        ...

    def test_curve(self, params: Params) -> Array | None:
        """Values on test of each epoch, (max_epochs,); None: there are none."""
        ...

    def recorded(self) -> tuple[Array, Array | None]:
        """Values and test values of random or recorded configurations, (n, max_epochs) each."""
        ...

    def noise(self, rng: np.random.Generator) -> Array | float:
        """A draw of what a training's values (max_epochs,) differ by for its seed, if known."""
        ...


class LcbenchTask:
    """A task of LCBench's surrogate; a training delivers its last epoch. See Task."""

    delivers: Final = "last"
    max_epochs = 52
    params: Final = None

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
        values = self._run(self._random_rows())[:, 1]
        self.best, self.median = float(values.max()), float(np.median(values))

    def curve(self, params: Params) -> tuple[Array, Array]:
        rows = np.tile([0.0, *(float(params[name]) for name in ORDER)], (self.max_epochs, 1))
        rows[:, 0] = np.arange(1, self.max_epochs + 1)
        outputs = self._run(rows).astype(float)
        return outputs[:, 1], np.maximum(np.diff(outputs[:, 0], prepend=0.0), 1e-3)

    def delivered(self, values: Array) -> float:
        return float(values[-1])

    def test_curve(self, params: Params) -> None:
        return None

    def recorded(self) -> tuple[Array, None]:
        return self._random_curves, None

    def noise(self, rng: np.random.Generator) -> float:
        return 0.0

    @cached_property
    def _random_curves(self) -> Array:
        rows, curves = self._random_rows()[:NUM_CURVES], []
        for epoch in range(1, self.max_epochs + 1):
            rows[:, 0] = epoch
            curves.append(self._run(rows)[:, 1])
        return np.stack(curves, 1).astype(float)

    def _run(self, rows: Array) -> Array:
        inputs = {
            "x_cat": np.full((len(rows), 1), self._code, np.int32),
            "x_cont": rows.astype(np.float32),
        }
        outputs: Array = self._session.run(None, inputs)[0]
        return outputs

    def _random_rows(self) -> Array:
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
        return np.stack(columns, 1)


class TasksetTask:
    """A task of TaskSet; a training delivers its best epoch. See Task."""

    delivers: Final = "best"
    max_epochs = 51

    def __init__(self, folder: Path, name: str) -> None:
        with np.load(folder / f"{name}.npz") as recorded:
            params = recorded["params"]
            self._values, self._tests = (_minus_log(recorded[part]) for part in ("valid", "test"))
        self.space = {
            name: {"type": "float", "low": low, "high": high, "log": not name.startswith("beta")}
            for name, (low, high) in ADAM_RANGES.items()
        }
        self.params = [dict(zip(ADAM_RANGES, row, strict=True)) for row in params.tolist()]
        self._nearest = NearestCurves(self._in_unit_cube(params))
        self.default = dict(ADAM_DEFAULT)
        ends = self._values.max(1)
        self.best, self.median = float(ends.max()), float(np.median(ends))

    def curve(self, params: Params) -> tuple[Array, Array]:
        return self._nearest.at(self._point(params), self._values), np.ones(self.max_epochs)

    def delivered(self, values: Array) -> float:
        return float(values.max())

    def test_curve(self, params: Params) -> Array:
        return self._nearest.at(self._point(params), self._tests)

    def recorded(self) -> tuple[Array, Array]:
        return self._values, self._tests

    def noise(self, rng: np.random.Generator) -> float:
        return 0.0

    def _point(self, params: Params) -> Array:
        return self._in_unit_cube(np.array([[params[name] for name in ADAM_RANGES]]))

    def _in_unit_cube(self, params: Array) -> Array:
        columns = []
        for column, entry in zip(params.T, self.space.values(), strict=True):
            scale = np.log if entry["log"] else np.asarray
            low, high = scale(entry["low"]), scale(entry["high"])
            columns.append((scale(column) - low) / (high - low))
        return np.stack(columns, 1)


TASKS: Final = {"lcbench": LcbenchTask, "taskset": TasksetTask, "own": OwnTask}


def load_task(bed: str, data: Path, name: str) -> Task:
    """A task of the bed whose data lie in a folder; those of `own` are a file."""
    return TASKS[bed](data, name)


def regret(task: Task, values: Array, normalisation: Normalisation = "median") -> float:
    """The regret of delivering a training with these values (max_epochs,)."""
    if normalisation == "median":
        return (task.best - task.delivered(values)) / (task.best - task.median)
    return _normalised(task.delivered(values), task, task.delivers, normalisation)


def regret_by(
    task: Task, params: Params, epoch: Epoch, normalisation: Normalisation = "median"
) -> float | None:
    """The regret of delivering a training's last epoch, its best, or on test what it delivers.

    The best epoch is chosen by the true values, not by test. None: the task has no test values.
    """
    values, _ = task.curve(params)
    test = task.test_curve(params)
    if epoch == "test" and test is None:
        return None
    value = _end(values[None], None if test is None else test[None], epoch, task.delivers)[0]
    return _normalised(float(value), task, epoch, normalisation)


def _normalised(value: float, task: Task, epoch: Epoch, normalisation: Normalisation) -> float:
    ends = _end(*task.recorded(), epoch, task.delivers)
    low = np.median(ends) if normalisation == "median" else ends.min()
    return float((ends.max() - value) / (ends.max() - low))


def _end(values: Array, tests: Array | None, epoch: Epoch, delivers: Epoch) -> Array:
    """What trainings with values and test values (n, max_epochs) deliver, (n,)."""
    chosen = delivers if epoch == "test" else epoch
    at = np.full(len(values), -1) if chosen == "last" else values.round(6).argmax(1)
    source = tests if epoch == "test" else values
    assert source is not None
    return source[np.arange(len(values)), at]


def task_names(bed: str, data: Path, split: str) -> list[str]:
    """Names of tasks; `split` is develop, report, all, or their names or numbers in order."""
    if bed == "lcbench":
        entries = _lcbench_entries(data)
        choices = next(p for p in entries if p["name"] == "OpenML_task_id")["choices"]
        ordered = sorted(choices, key=int)
    elif bed == "own":
        ordered = own_names(data)
    else:
        ordered = sorted(path.stem for path in data.glob("*.npz"))
    named = {"develop": ordered[0::2], "report": ordered[1::2], "all": ordered}
    return named.get(split) or split.split(",")


def _minus_log(losses: Array) -> Array:
    """Minus the logarithm of losses; a diverged moment has the worst of them."""
    finite = np.isfinite(losses)
    return -np.log(np.where(finite, losses, losses[finite].max()).astype(float))


def _lcbench_entries(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "config_space.json").read_text())[
        "hyperparameters"
    ]
    return entries
