"""Prints what a search would cost: `search --dry-run --profile`."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hpo.cli.output import print_rows, print_table, progress_of

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.config.sections import ResourcesConfig
    from hpo.execution.cluster import TrialResources
    from hpo.execution.profile import Cost, Profile
    from hpo.simulation.forecast import Forecast
    from hpo.simulation.prior_curves import ValuesOf
    from sgformer.data.image_folder import ImageFolder


@dataclass(frozen=True)
class PlannedSearch:
    """A search that is checked, and is not to start.

    Attributes:
        config: The search.
        folder: Its images.
        ray_address: HOST:PORT of a Ray cluster; None: this machine.
        storage: The storage option's URL; None: the config's, or a file in the run's folder.
    """

    config: "SearchConfig"
    folder: "ImageFolder"
    ray_address: str | None
    storage: str | None


@dataclass(frozen=True)
class MeasuredProfile:
    """What a search would cost.

    Attributes:
        costs: The cost of each architecture, as measured.
        forecasts: What the search would take, by scheduler.
        resources: What a trial takes.
        assumption: Which learning curves are assumed, in words.
    """

    costs: tuple["Cost", ...]
    forecasts: Mapping[str, "Forecast"]
    resources: "TrialResources"
    assumption: str

    def as_json(self, config: "SearchConfig") -> dict[str, Any]:
        """The profile as plain values, as `--json` prints it."""
        from hpo.execution.profile import architecture_name

        names = [architecture_name(cost.settings, config.space) for cost in self.costs]
        return {
            "costs": [
                {"architecture": name, **asdict(cost)}
                for name, cost in zip(names, self.costs, strict=True)
            ],
            "forecasts": {name: asdict(one) for name, one in self.forecasts.items()},
            "assumptions": _assumptions(config, self),
        }


def measured_profile(
    search: PlannedSearch,
    resources: "TrialResources",
    tell_costs: "Callable[[tuple[Cost, ...], TrialResources], None]",
) -> MeasuredProfile:
    """Measures each architecture of the space, and simulates the search.

    Args:
        search: The search.
        resources: What a trial takes, unless the measurement decides.
        tell_costs: Is told of what was measured, before the search is simulated.

    Raises:
        InputError: A training cannot be made, or no image can be read.
        RunError: A measurement broke, or a signal arrived.
    """
    from hpo.execution.interruption import interruptible
    from hpo.execution.profile import Profile
    from hpo.execution.surroundings import usable_surroundings
    from hpo.simulation.prior_curves import prior_curves

    config = search.config
    with interruptible("interrupted; nothing was started"), usable_surroundings():
        values_of, assumption = prior_curves(config, search.storage)
        costs = tuple(_told(search, resources))
        profile, known = Profile(costs), _architectures(search)
        resources = _settled(config, resources, profile, search.ray_address)
        tell_costs(costs, resources)
        found = dict(_forecasts(search, profile, values_of, resources, known))
    return MeasuredProfile(costs, found, resources, assumption)


def print_profile(search: PlannedSearch, resources: "TrialResources") -> None:
    """Measures each architecture of the space, simulates the search, and prints both as tables.

    Raises:
        InputError: `measured_profile` raises it.
        RunError: `measured_profile` raises it.
    """

    def tell_costs(costs: tuple["Cost", ...], resources: "TrialResources") -> None:
        _print_costs(search.config, costs, resources)

    _print_forecasts(search.config, measured_profile(search, resources, tell_costs))


def resources_text(resources: "TrialResources", asked: "ResourcesConfig") -> str:
    """What a trial takes, and how many fit, in words."""
    from hpo.config.sections import AUTO

    one = f"{resources.cpus} CPU; {resources.gpus:g} GPU"
    if resources.num_processes > 1:
        one += f", in each of {resources.num_processes} processes"
    if asked.gpus_per_trial == AUTO and resources.gpus:
        one += " or a share, as is measured when the search starts (--profile shows it)"
    return f"{one}; trials at a time: {resources.num_slots}"


def _settled(
    config: "SearchConfig", whole: "TrialResources", profile: "Profile", address: str | None
) -> "TrialResources":
    """What a trial takes where the measurement decides on its share of a GPU; else unchanged."""
    from hpo.config.sections import AUTO
    from hpo.execution.cluster import nodes_at
    from hpo.execution.gpu_share import shares_of, with_shares

    if config.resources.gpus_per_trial != AUTO or not whole.gpus:
        return whole
    return with_shares(config.resources, shares_of(profile), nodes_at(config.resources, address))


def _told(search: PlannedSearch, resources: "TrialResources") -> Iterator["Cost"]:
    """The costs of all architectures; standard error says which one is being measured."""
    from hpo.execution.profile import architecture_name, architectures, profiled

    config = search.config
    names = [architecture_name(one, config.space) for one in architectures(config)]
    measured = profiled(config, search.folder, resources, search.ray_address)
    with contextlib.closing(measured) as costs:
        for i, name in enumerate(names, 1):
            _say(f"measuring {name} ({i} of {len(names)})")
            yield next(costs)


def _architectures(search: PlannedSearch) -> Mapping[str, Any]:
    """What each architecture costs besides time, if objectives or constraints name such costs."""
    from hpo.engine.architectures import check_feasible, missing_architectures
    from hpo.execution.cluster import connected
    from hpo.execution.latency_node import latency_node, measured_on

    config, num_classes = search.config, len(search.folder.classes)
    if not config.study.architecture_costs:
        return {}
    _say(f"measuring {', '.join(config.study.architecture_costs)} of each architecture")
    asked, address = config.resources.latency_node, search.ray_address
    with connected(address) if asked and address else contextlib.nullcontext():
        node = latency_node(asked) if address else None
        known = {
            name: measured_on(node, config, params, num_classes)
            for name, params in missing_architectures(config, {}).items()
        }
    check_feasible(config, known)
    return known


def _forecasts(
    search: PlannedSearch,
    profile: "Profile",
    values_of: "ValuesOf",
    resources: "TrialResources",
    architectures: Mapping[str, Any],
) -> Iterator[tuple[str, "Forecast"]]:
    from hpo.simulation.forecast import Assumed, forecast, strategies
    from hpo.transfer.warm_start import warm_start_params

    config, num_val = search.config, len(search.folder.splits["val"])
    earlier = warm_start_params(config, search.storage)
    assumed = Assumed(values_of, profile.epoch_seconds, num_val, architectures, earlier)
    for name, strategy in strategies(config).items():
        with progress_of(f"simulating trials, scheduler {name}") as tell:
            yield name, forecast(strategy, assumed, resources, tell)


def _print_costs(
    config: "SearchConfig", costs: tuple["Cost", ...], resources: "TrialResources"
) -> None:
    from hpo.execution.gpu_share import share_for
    from hpo.execution.profile import architecture_name

    has_gpu = any(cost.gpu_bytes for cost in costs)
    of_architecture = {str(settings): took for settings, took in resources.by_architecture}
    rows = []
    for cost in costs:
        name = architecture_name(cost.settings, config.space)
        if cost.problem is not None:
            rows.append([name, "does not fit", *["-"] * (4 if has_gpu else 2)])
            continue
        seconds = cost.epoch_seconds
        took = of_architecture.get(str(cost.settings), resources)
        an_hour = 3600 * took.num_slots / (seconds * config.train.max_epochs)
        busy = "?" if cost.utilization is None else f"{cost.utilization:.0%}"
        share = took.gpus if of_architecture else share_for(cost)
        of_gpu = [busy, f"{share:.2g}"] if has_gpu else []
        rows.append([name, f"{seconds:.3g}", _gigabytes(cost), *of_gpu, _brief(an_hour)])
    of_gpu = ["GPU busy", "share of a GPU"] if has_gpu else []
    header = ["architecture", "s an epoch", "memory", *of_gpu, "trials an hour"]
    sys.stdout.write("\n")
    print_table(header, rows)


def _brief(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _gigabytes(cost: "Cost") -> str:
    size = f"{cost.memory_bytes / 1e9:.2g} GB"
    return size if cost.gpu_bytes is None else f"{size} of {cost.gpu_bytes / 1e9:.0f}"


def _print_forecasts(config: "SearchConfig", profile: MeasuredProfile) -> None:
    from datetime import datetime, timedelta

    from hpo.reporting.snapshot import clock_time

    rows = []
    for name, one in profile.forecasts.items():
        end = datetime.now() + timedelta(seconds=one.seconds)  # the user's own clock
        rows.append(
            [
                "no stopping" if name == "none" else name,
                str(one.num_trials),
                str(one.num_epochs),
                f"{one.gpu_hours:.3g}",
                clock_time(one.seconds),
                f"{end:%a %d %b %H:%M}",
            ]
        )
    sys.stdout.write("\n")
    header = ["the budget buys", "trials", "epochs", "GPU-hours", "takes", "ends, if begun now"]
    print_table(header, rows)
    sys.stdout.write("\n")
    print_rows(_assumptions(config, profile))


def _assumptions(config: "SearchConfig", profile: MeasuredProfile) -> dict[str, str]:
    resources, assumption = profile.resources, profile.assumption
    slots = resources.num_slots
    devices = (cost.device for cost in profile.costs if cost.problem is None)
    where = ", ".join(dict.fromkeys(devices))
    measured = f"each training alone, on the {where}, without start and saving"
    if slots > 1:
        measured += f"; {slots} at a time share the machines' memory and may be slower"
    simulated = f"{assumption}; all slots are free, no training fails or stops itself"
    if config.resources.workers_per_trial > 1:
        measured += "; of a group, one process, which exchanged no gradients"
    least = min(one.share_simulated for one in profile.forecasts.values())
    if least < 1:
        simulated += f"; {least:.0%} of the search was simulated, the rest goes on alike"
    runs_on = f"{resources.text} a trial, {slots} at a time"
    if resources.by_architecture:
        least = resources.num_of_largest
        num = f"{least} to {slots}" if least < slots else f"{slots}"
        runs_on = f"{resources.text}, or more, a trial; {num} at a time"
    counted = "trials, and finalists or the winner"
    if not resources.gpus:
        counted += "; GPU-hours count a process without a GPU as one GPU"
    return {"on": runs_on, "assumed": simulated, "measured": measured, "counted": counted}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
