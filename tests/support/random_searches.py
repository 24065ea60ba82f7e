"""Draws a search from one seed: its search file, simulated trainings, and faults."""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from hpo.config.loading import load_search_config
from hpo.config.schema import SAMPLERS_OF_SEVERAL, SCHEDULERS_OF_SEVERAL, SearchConfig
from hpo.config.search_space import Params

MODELS: Final = {
    "sg_former_pico": {"latency_ms": 1.0, "num_parameters": 1e5},
    "sg_former_nano": {"latency_ms": 2.0, "num_parameters": 4e5},
    "sg_former_micro": {"latency_ms": 9.0, "num_parameters": 1e6},
}
ARCHITECTURES: Final = {f"{name} at 32 pixels": costs for name, costs in MODELS.items()}
SCHEDULERS: Final = ("freeze_thaw", "asha", "asha_promotion", "hyperband", "median", "none")
# Weights: cheap samplers are drawn often, gp seldom, because it takes seconds a search.
SAMPLERS: Final = {
    "random": 6, "tpe": 3, "qmc": 3, "nsga2": 2, "nsga3": 1, "cmaes": 2, "grid": 3, "curves": 1,
}  # fmt: skip

RATE: Final = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
}
DROP: Final = {"model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.05}}
FINITE: Final = {
    "optimizer.learning_rate": {"type": "categorical", "choices": [5e-4, 1e-3, 2e-3, 4e-3]},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1},
}
CONDITIONAL: Final = RATE | {
    "augmentation.policy": {"type": "categorical", "choices": ["none", "mild", "guide"]},
    "model.drop_rate": {
        "type": "float", "low": 0.0, "high": 0.5,
        "when": {"augmentation.policy": ["mild", "guide"]},
    },
}  # fmt: skip
NAMES: Final = {"model.name": {"type": "categorical", "choices": list(MODELS)}}
SPACES: Final = (RATE, RATE | DROP, FINITE, CONDITIONAL, RATE | NAMES, FINITE | NAMES)


@dataclass(frozen=True)
class Training:
    """A simulated training.

    Attributes:
        rows: The metrics of each epoch, up to the epoch after which the training ends by itself.
        seconds: The duration of each epoch.
        fails_at: The epoch that fails each time that it is tried; None: no epoch fails.
    """

    rows: tuple[Mapping[str, float], ...]
    seconds: tuple[float, ...]
    fails_at: int | None


@dataclass(frozen=True)
class Trainings:
    """Simulates trainings; the same params always give the same training.

    Attributes:
        seed: Each seed gives other trainings.
        max_epochs: The length of a training without early stopping.
        diverging: The share of trainings that diverge.
        stopping: The share of trainings that stop early.
        failing: The share of trainings that fail.
        is_first_slow: Whether first epochs take three times as long.
        is_told_best: Whether the kept weights are those of the best epoch by another metric.
    """

    seed: int
    max_epochs: int
    diverging: float
    stopping: float
    failing: float
    is_first_slow: bool
    is_told_best: bool

    def of(self, params: Params) -> Training:
        text = json.dumps([self.seed, sorted(params.items())])
        digest = hashlib.sha256(text.encode()).digest()
        rng = random.Random(int.from_bytes(digest[:8], "big"))
        end = self._end(params) + rng.gauss(0, 0.01)
        speed = rng.uniform(0.15, 0.4) * self.max_epochs
        length = self.max_epochs
        if rng.random() < self.stopping:
            length = rng.randint(1, self.max_epochs)
        top1 = [
            end * (1 - math.exp(-epoch / speed)) + rng.gauss(0, 0.005)
            for epoch in range(1, length + 1)
        ]
        if rng.random() < self.diverging:
            top1 = [*top1[: rng.randint(0, length - 1)], math.nan]
        rows = tuple(
            {"epoch": epoch, "val_top1": value, "val_loss": 2 - 2 * value + rng.gauss(0, 0.02)}
            for epoch, value in enumerate(top1, 1)
        )
        fails_at = rng.randint(1, len(rows)) if rng.random() < self.failing else None
        of_an_epoch = rng.uniform(20, 40)
        first = of_an_epoch * (3 if self.is_first_slow else 1)
        return Training(rows, (first, *[of_an_epoch] * self.max_epochs), fails_at)

    def watched(self, metric: str) -> str:
        """The metric by which the epoch with the kept weights is chosen; `metric`: objective's."""
        if not self.is_told_best:
            return metric
        return "val_loss" if metric == "val_top1" else "val_top1"

    def _end(self, params: Params) -> float:
        """The val_top1 towards which a training's curve rises."""
        rate = math.log10(float(params["optimizer.learning_rate"] or 0)) + 3
        end = 0.8 - 0.2 * rate**2 - 0.1 * float(params.get("model.drop_rate") or 0)
        end += 0.03 * list(MODELS).index(str(params.get("model.name", "sg_former_pico")))
        return end + 0.02 * (params.get("augmentation.policy") == "guide")


@dataclass(frozen=True)
class Plan:
    """A search and its faults, as drawn from one seed.

    Attributes:
        seed: The seed from which the plan is drawn.
        configs: The validated search file: at first, and after each raise of its limits.
        num_slots: Number of trials that run at a time.
        trainings: The simulated trainings.
        is_calm: Whether kills between epochs are the only faults, besides failing trainings.
        killed: Probability of a kill at each event.
        lost: Probability that a worker dies in an epoch.
        full: Probability that a disk is full in an epoch.
        num_kills: Largest number of kills.
        asks_often: Whether workers poll, and others question the engine, more than necessary.
        num_carried: Number of epochs of another search whose trials are carried over first.
        enqueued: Probability that another program enqueues a trial, at each event.
    """

    seed: int
    configs: tuple[SearchConfig, ...]
    num_slots: int
    trainings: Trainings
    is_calm: bool
    killed: float
    lost: float
    full: float
    num_kills: int
    asks_often: bool
    num_carried: int
    enqueued: float


def draw_plan(seed: int, folder: Path) -> Plan:
    """Draws the plan of a seed, and writes its search files into the folder."""
    rng = random.Random(seed)
    max_epochs = rng.choice((1, 2, 3, 5, 8, 12, 12))
    is_calm = rng.random() < 0.4
    values = _search_file(rng, max_epochs)
    files = itertools.accumulate(_raises(rng, values), _with_limits, initial=values)
    trainings = Trainings(
        seed=seed,
        max_epochs=max_epochs,
        diverging=rng.choice((0, 0.1, 0.4)),
        stopping=rng.choice((0, 0.1, 0.5)),
        failing=rng.choice((0, 0, 0.1, 0.3)),
        is_first_slow=rng.random() < 0.2,
        is_told_best=rng.random() < 0.3,
    )
    return Plan(
        seed=seed,
        configs=tuple(_read(file, folder / f"seed{seed}.yaml") for file in files),
        num_slots=1 if is_calm else rng.randint(1, 5),
        trainings=trainings,
        is_calm=is_calm,
        killed=0.05 if is_calm else rng.choice((0, 0.01, 0.05)),
        lost=0 if is_calm else rng.choice((0, 0.02, 0.1)),
        full=0 if is_calm else rng.choice((0, 0, 0.01)),
        num_kills=rng.randint(1, 4),
        asks_often=rng.random() < 0.5,
        num_carried=rng.randint(1, 8 * max_epochs) if rng.random() < 0.1 else 0,
        enqueued=0.02 if not is_calm and rng.random() < 0.1 else 0,
    )


def _read(values: Mapping[str, Any], path: Path) -> SearchConfig:
    path.write_text(yaml.safe_dump(values))
    return load_search_config(path)[0]


def _with_limits(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The search file's values with other limits."""
    return {**values, **{section: values[section] | more[section] for section in more}}


def _search_file(rng: random.Random, max_epochs: int) -> dict[str, Any]:
    scheduler = rng.choice(SCHEDULERS)
    has_several = scheduler in SCHEDULERS_OF_SEVERAL and rng.random() < 0.2
    sampler = _sampler(rng, scheduler, has_several=has_several)
    spaces = [s for s in SPACES if s in (FINITE, FINITE | NAMES)] if sampler == "grid" else SPACES
    space = rng.choice(spaces)
    study: dict[str, Any] = {
        "num_trials": rng.randint(1, 20), "seed": rng.randint(0, 99), "sampler": sampler,
        "max_retries": rng.choice((0, 1, 3)),
        "constraints": [c for c in _constraints(space) if rng.random() < 0.3],
        "objectives": [rng.choice((["val_top1", "maximize"], ["val_loss", "minimize"]))],
        "enqueue": [{"optimizer.learning_rate": 1e-3}] if rng.random() < 0.2 else [],
    }  # fmt: skip
    if has_several:
        study["objectives"].append([rng.choice(("num_parameters", "latency_ms")), "minimize"])
        study["select"] = rng.choice(("best", "knee", "front"))
    retrain = {"seeds": rng.choice((0, 3)), "top_k": rng.randint(1, 3)}
    retrain["max_share"] = (None, 0.2, 1.0)[retrain["top_k"] - 1]
    values: dict[str, Any] = {
        "study": study,
        "scheduler": _scheduler(rng, scheduler),
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "retrain": retrain,
        "space": space,
        "train": _train(max_epochs),
    }
    num_after = (retrain["top_k"] + 1) * 3 if retrain["seeds"] and not has_several else 1
    num_trainings = num_after + rng.choice((1, 1.5, 2, 3, 6, 10))
    values["budget"] = _budget(rng, num_trainings * max_epochs)
    if scheduler == "freeze_thaw" and rng.random() < 0.2:
        values["budget"]["stop_when"] = {"gain_per_gpu_hour": 10 ** rng.uniform(-2, 1)}
    return values


def _sampler(rng: random.Random, scheduler: str, *, has_several: bool) -> str:
    if scheduler == "freeze_thaw":
        return "curves"
    several = [name for name in SAMPLERS_OF_SEVERAL if name != "gp"]
    allowed = several if has_several else list(SAMPLERS)
    return rng.choices(allowed, [SAMPLERS[name] for name in allowed])[0]


def _scheduler(rng: random.Random, name: str) -> dict[str, Any]:
    values: dict[str, Any] = {"name": name, "reduction_factor": rng.choice((2, 3, 4))}
    if rng.random() < 0.6:
        values["min_epochs"] = rng.randint(1, 5)
    if name == "freeze_thaw":
        values["cost_aware"] = rng.random() < 0.2
    return values


def _constraints(space: Mapping[str, Any]) -> tuple[str, ...]:
    bounds = ("val_top1 >= 0.6", "val_loss <= 0.9")
    costs = ("num_parameters <= 500000", "latency_ms <= 1.5")
    return bounds + (costs if "model.name" in space else ())


def _budget(rng: random.Random, num_epochs: float) -> dict[str, Any]:
    """A budget of about `num_epochs` epochs of 20 to 40 seconds; may have no limit."""
    hours = num_epochs * 30 / 3600
    limits = {
        "total_epochs": math.ceil(num_epochs), "gpu_hours": hours, "wall_clock_hours": hours,
    }  # fmt: skip
    drawn = rng.choice((
        ("total_epochs",), ("total_epochs",), ("total_epochs",), ("gpu_hours",),
        ("wall_clock_hours",), ("total_epochs", "gpu_hours"), (),
    ))  # fmt: skip
    return {name: limits[name] for name in drawn}


def _raises(rng: random.Random, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    raises = []
    num_trials, budget = values["study"]["num_trials"], values["budget"]
    for _ in range(rng.choice((0, 0, 1, 2))):
        num_trials += rng.choice((0, 1, 5, 20))
        factor = rng.choice((1.0, 1.02, 1.5, 3))
        limits = {k: v for k, v in budget.items() if k != "stop_when"}
        budget = {
            k: math.ceil(v * factor) if k == "total_epochs" else v * factor
            for k, v in limits.items()
        }
        raises.append({"study": {"num_trials": num_trials}, "budget": budget})
    return raises


def _train(max_epochs: int) -> dict[str, Any]:
    folder = "images of this test are never read"
    return {
        "model": {"name": "sg_former_pico", "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": folder},
        "augmentation": {"policy": "mild"},
        "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 0},
        "max_epochs": max_epochs,
        "device": "cpu",
    }
