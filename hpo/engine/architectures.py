"""Costs of a space's architectures, such as latency, measured before any training."""

import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.config.combinations import combinations
from hpo.config.objectives import ARCHITECTURE_COSTS, Constraint, brief
from hpo.config.schema import SearchConfig
from hpo.config.search_space import (
    ARCHITECTURE,
    Params,
    apply_params,
    value_at,
)
from hpo.errors import StudyError
from sgformer.config import TrainConfig
from sgformer.cpus import usable_cpus


class ArchitectureCosts:
    """Looks up a configuration's costs, and whether constraints let it be trained.

    Args:
        config: The config of the search; its constraints say what may be trained.
        measured: Costs by architecture name, as `measure_architecture` returns them.
    """

    def __init__(self, config: SearchConfig, measured: Mapping[str, Mapping[str, float]]) -> None:
        self._config, self._measured = config, measured
        self._constraints = [c for c in config.study.constraints if c.name in ARCHITECTURE_COSTS]

    def of(self, params: Params) -> dict[str, float]:
        """Costs of a configuration's architecture, by the names in `study.architecture_costs`.

        Some costs may be missing for an architecture that a constraint rules out.

        Raises:
            StudyError: The architecture was not measured.
        """
        names = self._config.study.architecture_costs
        if not names:
            return {}
        architecture = _name(self._config, params)
        known = self._measured.get(architecture, {})
        if not _is_known(self._config, known):
            raise StudyError(f"what {architecture} costs is not in the study: {', '.join(names)}")
        return {name: known[name] for name in names if name in known}

    def objectives(self, params: Params) -> tuple[float, ...]:
        """Values of a configuration's objectives that are costs; smaller is better."""
        costs = self.of(params)
        return tuple(costs[name] for name, _ in self._config.study.objectives if name in costs)

    def violations(self, params: Params) -> dict[str, float]:
        """A configuration's violation of each constraint on costs; at most 0: it is kept."""
        if not self._constraints:
            return {}
        costs = self.of(params)
        return {str(c): c.violation(costs[c.name]) for c in self._constraints if c.name in costs}

    def infeasible(self, params: Params) -> str | None:
        """The constraints on costs that a configuration misses, in words; None: it misses none."""
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
        """A function that says whether a configuration may be trained; None: each one may."""
        if not self._constraints:
            return None
        return lambda params: self.infeasible(params) is None


def missing_architectures(
    config: SearchConfig, known: Mapping[str, Mapping[str, float]]
) -> dict[str, Params]:
    """One configuration of each architecture that is yet to be measured, by its name."""
    return {
        name: params
        for name, params in _architectures(config)
        if not _is_known(config, known.get(name, {}))
    }


def has_to_be_exported(config: SearchConfig, params: Params, num_classes: int) -> bool:
    """Whether the search needs the exported file of a configuration's architecture."""
    return not _is_known(config, _size(apply_params(config.train, params, "space"), num_classes))


def measure_architecture(
    config: SearchConfig, params: Params, num_classes: int, exported: Path | None = None
) -> dict[str, Any]:
    """Measures the costs of a configuration's architecture on this machine.

    Returns `num_parameters` and, unless these already rule the architecture out, what the search
    needs of its exported file: `bytes` and `format` (onnx or int8); and of `latency_ms` the
    machine's `hostname`, and `num_cpus`, the CPUs that this process may use.

    Args:
        config: The config of the search.
        params: Params of a configuration with this architecture.
        num_classes: The number of classes.
        exported: The file that `export_untrained` wrote of the architecture; None: it is exported
            here if its costs are needed.
    """
    train = apply_params(config.train, params, "space")
    costs: dict[str, Any] = _size(train, num_classes)
    if not _is_known(config, costs):
        from sgformer.export.architecture_costs import measure_file

        is_timed = "latency_ms" in config.study.costs
        found = measure_file(
            train, num_classes, exported, int8=config.export.int8, is_timed=is_timed
        )
        costs |= {"bytes": found.bytes, "format": found.format}
        if is_timed:
            costs |= {"latency_ms": found.latency_ms}
            costs |= {"hostname": socket.gethostname(), "num_cpus": usable_cpus()}
    return costs


def _size(train: TrainConfig, num_classes: int) -> dict[str, Any]:
    from sgformer.export.architecture_costs import num_parameters  # imports torch

    return {"num_parameters": num_parameters(train, num_classes)}


def check_feasible(config: SearchConfig, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Raises StudyError if every architecture of the space misses a constraint on costs."""
    costs = ArchitectureCosts(config, measured)
    reasons = {name: costs.infeasible(params) for name, params in _architectures(config)}
    if all(reasons.values()):
        lines = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise StudyError(
            "no architecture of the space keeps to study.constraints; change a bound, or widen "
            f"space.model.name or space.data.image_size, and choose another --study-name:\n{lines}"
        )


def several_machines(
    config: SearchConfig, measured: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """A note if the latencies of the space's architectures are not all of one machine."""
    if "latency_ms" not in config.study.costs:
        return None
    timed = (measured.get(name, {}) for name, _ in _architectures(config))
    hosts = sorted({str(costs["hostname"]) for costs in timed if "hostname" in costs})
    if len(hosts) < 2:
        return None
    return (
        f"latency_ms was measured on {len(hosts)} machines, {', '.join(hosts)}, since the search "
        "was resumed elsewhere; the figures may not compare (resources.latency_node)"
    )


def _is_known(config: SearchConfig, costs: Mapping[str, float]) -> bool:
    """Whether all costs of an architecture were measured, or enough to rule it out."""
    return costs.keys() >= set(config.study.architecture_costs) or bool(_missed(config, costs))


def _missed(config: SearchConfig, costs: Mapping[str, float]) -> list[Constraint]:
    return [c for c in config.study.constraints if c.violation(costs.get(c.name, c.bound)) > 0]


def _architectures(config: SearchConfig) -> Iterator[tuple[str, Params]]:
    """Each architecture of the space: its name, and one configuration that has it."""
    for params in combinations(config.train, config.space, ARCHITECTURE):
        yield _name(config, params), params


def _name(config: SearchConfig, params: Params) -> str:
    """The name of a configuration's architecture, such as 'sg_former_b0 at 224 pixels'."""
    name, side = (params.get(path, value_at(config.train, path)) for path in ARCHITECTURE)
    return f"{name} at {int(side)} pixels"
