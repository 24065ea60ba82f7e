"""The searches that decision_histories.py simulates: settings and simulated learning curves.

Every scheduler runs with suitable samplers: without limits, under each kind of limit, with
constraints, with two objectives, and with killed drivers. The names of searches must not change,
so that old files of histories can still be compared.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Values = dict[str, Any]

MAX_EPOCHS: Final = 12
NUM_SLOTS: Final = (1, 4)
NUM_SEEDS: Final = {"main": 3, "many": 2}
MODELS: Final = ("sg_former_pico", "sg_former_nano", "sg_former_micro")
ARCHITECTURES: Final = {
    f"{model} at 32 pixels": {"latency_ms": latency_ms, "num_parameters": num_parameters}
    for model, latency_ms, num_parameters in zip(
        MODELS, (1.0, 2.0, 9.0), (1e5, 4e5, 1e6), strict=True
    )
}

SPACE: Final[Values] = {
    "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.05},
}
FINITE: Final[Values] = {
    "optimizer.learning_rate": {"type": "categorical", "choices": [5e-4, 1e-3, 2e-3, 4e-3]},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.3, "step": 0.1},
}
CONDITIONAL: Final[Values] = SPACE | {
    "augmentation.policy": {"type": "categorical", "choices": ["none", "mild", "guide"]},
    "optimizer.weight_decay": {
        "type": "float", "low": 1e-3, "high": 0.3, "log": True,
        "when": {"augmentation.policy": ["mild", "guide"]},
    },
    "model.drop_path_rate": {"type": "float", "low": 0.0, "high": 0.3},
}  # fmt: skip
WITH_MODELS: Final[Values] = SPACE | {
    "model.name": {"type": "categorical", "choices": list(MODELS)}
}

BASE: Final[Values] = {
    "study": {"num_trials": 20, "name": "kept"},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent_trials": 4},
    "retrain": {"seeds": 0},
    "space": SPACE,
    "train": {
        "model": {"name": "sg_former_pico", "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {
            "data_dir": "/nowhere", "image_size": 32, "crop_pct": 1.0, "cache_dir": "/nowhere",
        },
        "augmentation": {"policy": "mild"},
        "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 1},
        "max_epochs": MAX_EPOCHS,
        "device": "cpu",
    },
}  # fmt: skip
# The samplers of each scheduler; the first sampler also runs VARIANTS.
SAMPLERS: Final = {
    "freeze_thaw": ("curves",),
    "asha": ("tpe", "random", "cmaes", "nsga2", "qmc", "curves", "grid"),
    "asha_promotion": ("tpe", "cmaes", "random", "nsga3", "grid"),
    "hyperband": ("tpe", "random"),
    "median": ("tpe", "qmc"),
    "none": ("tpe", "gp", "curves"),
}
WITHOUT_EPOCH_LIMIT: Final = ("gp", "nsga2", "nsga3", "qmc")
SCHEDULERS_OF_TWO_OBJECTIVES: Final = ("asha", "hyperband", "none")

# total_epochs includes MAX_EPOCHS for each training after the search.
EPOCH_LIMIT: Final[Values] = {"budget": {"total_epochs": 60 + MAX_EPOCHS}}
BOUNDS: Final[Values] = {
    "space": WITH_MODELS,
    "study": {"constraints": ["latency_ms <= 5", "val_top1 >= 0.6"]},
    "budget": {"total_epochs": 70 + MAX_EPOCHS},
}
TWO_OBJECTIVES: Final[Values] = {
    "space": WITH_MODELS,
    "study": {
        "objectives": [["val_top1", "maximize"], ["latency_ms", "minimize"]], "select": "front",
    },
}  # fmt: skip
VARIANTS: Final[dict[str, Values]] = {
    "gpu_hours": {"budget": {"gpu_hours": 100 / 3600}, "study": {"num_trials": 60}},
    "wall_clock": {"budget": {"wall_clock_hours": 60 / 3600}, "study": {"num_trials": 60}},
    "conditional": {"space": CONDITIONAL},
    "finite": {"space": FINITE, "study": {"num_trials": 30}},
    "val_loss": {"study": {"objectives": [["val_loss", "minimize"]]}},
    "min_epochs": {"scheduler": {"min_epochs": 2, "reduction_factor": 2}},
    "bounds": BOUNDS,
}
FREEZE_THAW_VARIANTS: Final[dict[str, Values]] = {
    "stop_when": {
        "study": {"num_trials": 100},
        "budget": {"total_epochs": 200, "stop_when": {"gain_per_gpu_hour": 0.5}},
    },
    "cost_aware": {"scheduler": {"cost_aware": True}, "budget": {"gpu_hours": 90 / 3600}},
    "finalists": {
        "retrain": {"seeds": 2, "top_k": 1, "max_share": None},
        "budget": {"total_epochs": 70 + 4 * MAX_EPOCHS},
    },
}


@dataclass(frozen=True)
class Search:
    """One search to simulate.

    Attributes:
        group: "main", or "many" for long searches of 150 trials.
        name: The search's unique name.
        values: The values of the search file.
        num_slots: Largest number of trials that run at a time.
        killed_after: For each killed driver, its number of steps (epochs) before the kill; one
            more driver runs the search to its end.
    """

    group: str
    name: str
    values: Values
    num_slots: int
    killed_after: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Case:
    """A search without number of slots and seed."""

    group: str
    name: str
    values: Values
    killed_after: tuple[int, ...] = ()


def searches() -> tuple[Search, ...]:
    """All searches: each case on one slot and on several slots, with a few seeds."""
    cases = (*_main_cases(), *_many_cases())
    return tuple(
        Search(
            group=case.group,
            name=f"{case.group}/{case.name}/slots{num_slots}/seed{seed}",
            values=_merged(_merged(BASE, case.values), {"study": {"seed": seed}}),
            num_slots=num_slots,
            killed_after=case.killed_after,
        )
        for num_slots, case in itertools.product(NUM_SLOTS, cases)
        for seed in range(NUM_SEEDS[case.group])
    )


def _main_cases() -> Iterator[_Case]:
    for scheduler, samplers in SAMPLERS.items():
        for sampler in samplers:
            yield from _sampler_cases(scheduler, sampler)
        yield from _variant_cases(scheduler, _strategy(scheduler, samplers[0]))
    for name, more in FREEZE_THAW_VARIANTS.items():
        values = _merged({"scheduler": {"name": "freeze_thaw"}}, more)
        yield _Case("main", f"freeze_thaw/{name}", values)
    values = _merged(_strategy("asha", "nsga2"), TWO_OBJECTIVES)
    yield _Case("main", "asha/two objectives nsga2", values)


def _sampler_cases(scheduler: str, sampler: str) -> Iterator[_Case]:
    name, values = f"{scheduler}+{sampler}", _strategy(scheduler, sampler)
    if sampler == "grid":
        values["space"] = FINITE
    yield _Case("main", f"{name}/plain", values)
    if sampler not in WITHOUT_EPOCH_LIMIT:
        yield _Case("main", f"{name}/epochs", _merged(values, EPOCH_LIMIT))


def _variant_cases(scheduler: str, values: Values) -> Iterator[_Case]:
    for name, more in VARIANTS.items():
        yield _Case("main", f"{scheduler}/{name}", _merged(values, more))
    yield _Case("main", f"{scheduler}/killed", values, (7, 12, 25))
    yield _Case("main", f"{scheduler}/killed+bounds", _merged(values, BOUNDS), (7, 12, 25))
    if scheduler in SCHEDULERS_OF_TWO_OBJECTIVES:
        values = _merged(values, TWO_OBJECTIVES)
        yield _Case("main", f"{scheduler}/two objectives", values)
        yield _Case("main", f"{scheduler}/two objectives killed", values, (11, 29))


def _many_cases() -> Iterator[_Case]:
    many = {"study": {"num_trials": 150}}
    values = {
        "scheduler": {"name": "freeze_thaw"},
        "budget": {"total_epochs": 450 + MAX_EPOCHS},
    }
    yield _Case("many", "freeze_thaw", _merged(many, values))
    for scheduler, sampler in (
        ("asha", "curves"), ("asha", "qmc"), ("asha", "nsga2"), ("asha_promotion", "tpe"),
        ("hyperband", "cmaes"),
    ):  # fmt: skip
        values = _merged(many, _strategy(scheduler, sampler))
        yield _Case("many", f"{scheduler}+{sampler}", values)


def _strategy(scheduler: str, sampler: str) -> Values:
    return {"scheduler": {"name": scheduler}, "study": {"sampler": sampler}}


def _merged(values: Values, more: Values) -> Values:
    """`values` updated by `more`, section by section; a `space` replaces the whole space."""
    merged = dict(values)
    for key, value in more.items():
        is_section = key != "space" and isinstance(value, dict) and key in merged
        merged[key] = _merged(merged[key], value) if is_section else value
    return merged


def made_up_curve(params: Mapping[str, Any], metric: str) -> tuple[list[float], list[float]]:
    """The objective after each epoch of a simulated training, and the seconds of each epoch.

    Both depend on the params only. About one training in ten ends by itself before MAX_EPOCHS, and
    one in fourteen diverges: its last value is NaN.

    Args:
        params: The trial's params, by their dotted paths.
        metric: The objective, "val_top1" or "val_loss".
    """
    text = json.dumps({name: params[name] for name in sorted(params)})
    digest = hashlib.sha256(text.encode()).digest()
    speed, phase, length, divergence = (byte / 255 for byte in digest[:4])
    final = _final_value(params)
    values = [
        final * (1 - math.exp(-epoch / (2 + 2 * speed))) + 0.01 * math.sin(9 * phase + 5 * epoch)
        for epoch in range(1, MAX_EPOCHS + 1)
    ]
    if length >= 0.9:
        values = values[: 1 + int(10 * (length - 0.9) * (MAX_EPOCHS - 1))]
    if metric == "val_loss":
        values = [2 * (1 - value) for value in values]
    if divergence > 0.93:
        values = [*values[: int(phase * (len(values) - 1))], math.nan]
    return values, [(1.0 + (_log_rate(params) > 0)) * (1 + 0.2 * speed)] * len(values)


def _final_value(params: Mapping[str, Any]) -> float:
    """The validation accuracy towards which a training's curve rises, without its ripple."""
    final: float = 0.9 - 0.2 * _log_rate(params) ** 2 - 0.1 * float(params["model.drop_rate"])
    if "model.name" in params:
        final += 0.02 * MODELS.index(params["model.name"])
    if params.get("augmentation.policy") == "guide":
        final += 0.02
    if "optimizer.weight_decay" in params:
        final -= 0.02 * (math.log10(params["optimizer.weight_decay"]) + 1.5) ** 2
    final -= 0.1 * params.get("model.drop_path_rate", 0.0)
    return final


def _log_rate(params: Mapping[str, Any]) -> float:
    """log10(learning rate / 0.001); 0.001 is the best learning rate."""
    return math.log10(float(params["optimizer.learning_rate"])) + 3
