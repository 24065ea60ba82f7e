"""What the architectures of a space cost: known before any of their trainings."""

import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from hpo.config.objectives import COSTS, Constraint, brief
from hpo.config.schema import SearchConfig
from hpo.config.search_space import (
    ARCHITECTURE,
    CategoricalParameter,
    Params,
    Value,
    apply_params,
    value_at,
)
from hpo.errors import StudyError

PIXELS: Final = 32  # an image's side is a multiple of it


class ArchitectureCosts:
    """Looks up what a configuration costs, and whether it may be trained.

    Args:
        config: The whole search's; its constraints say what may be trained.
        measured: What each architecture costs, by its name, as `measure_architecture` gives it.
    """

    def __init__(self, config: SearchConfig, measured: Mapping[str, Mapping[str, float]]) -> None:
        self._config, self._measured = config, measured
        self._constraints = [c for c in config.study.constraints if c.name in COSTS]

    def of(self, params: Params) -> dict[str, float]:
        """What a configuration's architecture costs, by the names of `study.costs`.

        Of an architecture that a constraint rules out, some costs may not have been measured.

        Raises:
            StudyError: The architecture was not measured.
        """
        names = self._config.study.costs
        if not names:
            return {}
        architecture = _name(self._config, params)
        known = self._measured.get(architecture, {})
        if not _is_known(self._config, known):
            raise StudyError(f"what {architecture} costs is not in the study: {', '.join(names)}")
        return {name: known[name] for name in names if name in known}

    def objectives(self, params: Params) -> tuple[float, ...]:
        """A configuration's values of the objectives that are costs; smaller is better."""
        costs = self.of(params)
        return tuple(costs[name] for name, _ in self._config.study.objectives if name in costs)

    def violations(self, params: Params) -> dict[str, float]:
        """By how much a configuration misses each constraint on costs; at most 0: it does not."""
        if not self._constraints:
            return {}
        costs = self.of(params)
        return {str(c): c.violation(costs[c.name]) for c in self._constraints if c.name in costs}

    def infeasible(self, params: Params) -> str | None:
        """Which constraints on costs rule a configuration out, in words; None: none does."""
        if not self._constraints:
            return None
        costs = self.of(params)
        missed = _missed(self._config, costs)
        reasons = (
            f"{c.name} {brief(costs[c.name])}, not {c.sense} {brief(c.bound)}" for c in missed
        )
        return "; ".join(reasons) or None

    @property
    def is_allowed(self) -> Callable[[Params], bool] | None:
        """Says of a configuration whether it may be trained; None: any may."""
        if not self._constraints:
            return None
        return lambda params: self.infeasible(params) is None


def missing_architectures(
    config: SearchConfig, known: Mapping[str, Mapping[str, float]]
) -> dict[str, Params]:
    """The space's architectures that are yet to be measured: a configuration of each, by name."""
    return {
        name: params
        for name, params in _architectures(config)
        if not _is_known(config, known.get(name, {}))
    }


def measure_architecture(config: SearchConfig, params: Params, num_classes: int) -> dict[str, Any]:
    """What a configuration's architecture costs on this machine, and which machine that is.

    An architecture that its number of parameters rules out is not timed.
    """
    from sgformer.export.architecture_costs import measure_latency_ms, num_parameters  # torch

    train = apply_params(config.train, params, "space")
    costs: dict[str, Any] = {"num_parameters": num_parameters(train, num_classes)}
    if not _is_known(config, costs):
        costs["latency_ms"] = measure_latency_ms(train, num_classes)
        costs |= {"hostname": socket.gethostname(), "num_cpus": os.cpu_count()}
    return costs


def check_feasible(config: SearchConfig, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Raises StudyError where no architecture of the space keeps to the constraints."""
    costs = ArchitectureCosts(config, measured)
    reasons = {name: costs.infeasible(params) for name, params in _architectures(config)}
    if all(reasons.values()):
        lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise StudyError(
            "no architecture of the space keeps to study.constraints; change a bound, or widen "
            f"space.model.name or space.data.image_size, and choose another --study-name:\n{lines}"
        )


def _is_known(config: SearchConfig, costs: Mapping[str, float]) -> bool:
    """Whether all costs of an architecture are known, or enough of them to rule it out."""
    return costs.keys() >= set(config.study.costs) or bool(_missed(config, costs))


def _missed(config: SearchConfig, costs: Mapping[str, float]) -> list[Constraint]:
    return [c for c in config.study.constraints if c.violation(costs.get(c.name, c.bound)) > 0]


def _architectures(config: SearchConfig) -> Iterator[tuple[str, Params]]:
    """The names of the space's architectures, each with one configuration."""
    for values in itertools.product(*(_values(config, path) for path in ARCHITECTURE)):
        params = dict(zip(ARCHITECTURE, values, strict=True))
        yield _name(config, params), params


def _values(config: SearchConfig, path: str) -> list[Value]:
    default, parameter = value_at(config.train, path), config.space.get(path)
    if parameter is None:
        return [default]
    if isinstance(parameter, CategoricalParameter):
        values = list(parameter.choices)
    else:
        low = -(-int(parameter.low) // PIXELS) * PIXELS
        sides = range(low, int(parameter.high) + 1, PIXELS)
        values = [side for side in sides if parameter.contains(side)]
    return values if default in values else [default, *values]  # `when` may leave it


def _name(config: SearchConfig, params: Params) -> str:
    """The name of a configuration's architecture, such as 'sg_former_b0 at 224 pixels'."""
    name, side = (params.get(path, value_at(config.train, path)) for path in ARCHITECTURE)
    return f"{name} at {int(side)} pixels"
