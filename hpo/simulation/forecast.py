"""What a search will take before it runs: its own scheduler over assumed learning curves."""

import heapq
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, apply_params
from hpo.engine.budget import SECONDS_AN_HOUR, Budget
from hpo.execution.cluster import TrialResources
from hpo.execution.gpu_share import resources_for
from hpo.selection.affordable import finalists_within_budget
from hpo.selection.finalists import has_candidates, retrain_config, trainings_of
from hpo.selection.selection import selected
from hpo.simulation.prior_curves import ValuesOf
from hpo.simulation.replay import with_strategy
from hpo.simulation.shared_slots import SimulatedWorkers
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus
from sgformer.config import TrainConfig

MOST_SECONDS: Final = 30.0  # of simulating; what is left is taken to go on alike
WITHOUT_STOPPING: Final = "none"


@dataclass(frozen=True)
class Forecast:
    """What a search takes, the trainings after its trials included.

    Attributes:
        num_trials: Trials that start.
        num_epochs: Epochs of all trainings.
        gpu_hours: GPU-hours of all trainings, as `budget.gpu_hours` counts them.
        seconds: Seconds to the end of the last training.
        share_simulated: The share of the search that was simulated, 0..1; the rest is taken to
            go on alike.
    """

    num_trials: int
    num_epochs: int
    gpu_hours: float
    seconds: float
    share_simulated: float


@dataclass(frozen=True)
class Assumed:
    """What a forecast assumes.

    Attributes:
        values_of: The metric after each epoch of a training with some params.
        epoch_seconds: Seconds of an epoch of a training.
        num_val_images: Images in val.
        architectures: The costs of each architecture, by name, if the config names costs.
        warm_start: Configurations of earlier studies that are tried first.
    """

    values_of: ValuesOf
    epoch_seconds: Callable[[TrainConfig], float]
    num_val_images: int
    architectures: Mapping[str, Mapping[str, float]] | None = None
    warm_start: Sequence[Params] = ()


def strategies(config: SearchConfig) -> dict[str, SearchConfig]:
    """The search with its scheduler and, under WITHOUT_STOPPING, with one that stops no trial."""
    without = with_strategy(config, WITHOUT_STOPPING, None)
    return {str(config.scheduler.name): config} | {WITHOUT_STOPPING: without}


def forecast(
    config: SearchConfig,
    assumed: Assumed,
    resources: TrialResources,
    tell: Callable[[int, int], None],
    most_seconds: float = MOST_SECONDS,
) -> Forecast:
    """Simulates the search to its end, for at most `most_seconds` of this process's time.

    Args:
        config: The config of the search.
        assumed: The learning curves and their seconds.
        resources: What its trials run on; one without a GPU counts as on one GPU.
        tell: Is told how many trials have started, of how many.
        most_seconds: After this time the search is taken to go on as it did so far.
    """
    search = _search(config, assumed, resources)
    end, is_over = time.monotonic() + most_seconds, False
    while not is_over and time.monotonic() < end:
        is_over = not search.step()
        tell(len(search.curves), config.study.num_trials)
    share = 1.0 if is_over else _share_done(config, search, resources.num_slots)
    after = _trainings_after(config, search, assumed, resources.num_of_largest)
    lengths = [config.fresh_epochs * assumed.epoch_seconds(train) for train in after]
    gpus = [_gpus_of(train, resources) for train in after]
    gpu_seconds = search.gpu_seconds / share + sum(map(operator.mul, lengths, gpus))
    return Forecast(
        num_trials=min(config.study.num_trials, round(len(search.curves) / share)),
        num_epochs=round(search.num_epochs / share) + config.fresh_epochs * len(lengths),
        gpu_hours=gpu_seconds / SECONDS_AN_HOUR,
        seconds=search.now / share + _seconds_in(resources.num_of_largest, lengths),
        share_simulated=share,
    )


def _search(config: SearchConfig, assumed: Assumed, resources: TrialResources) -> SimulatedSearch:
    study = SearchStudy.in_memory(config.study, config.space)
    study.metadata.warm_start = assumed.warm_start

    def curve_of(params: Params) -> Curve:
        values = assumed.values_of(params)
        seconds = assumed.epoch_seconds(apply_params(config.train, params, "space"))
        return Curve(values, [seconds] * len(values))

    def gpus_of(params: Params) -> float:
        return _gpus_of(apply_params(config.train, params, "space"), resources)

    workers = None
    if resources.by_architecture:
        per_gpu = int(1 / resources.gpus)
        num = max(resources.num_slots, resources.num_of_largest * per_gpu)
        workers = SimulatedWorkers(num, per_gpu, lambda one: gpus_of(one.params))
    num, costs = resources.num_slots, assumed.architectures
    return SimulatedSearch(config, curve_of, num, study, costs, gpus_of=gpus_of, workers=workers)


def _gpus_of(train: TrainConfig, resources: TrialResources) -> float:
    """GPUs of a training, as the budget counts them."""
    return resources_for(train, resources).num_gpus or 1.0


def _share_done(config: SearchConfig, search: SimulatedSearch, num_slots: int) -> float:
    """How much of the trials that the limits allow has been simulated, above 0 and up to 1."""
    budget = Budget.of_study(config, search.study, num_slots)
    trials = search.study.trials()
    lengths = [trial.num_epochs / config.train.max_epochs for trial in trials]
    is_running = [trial.state == TrialStatus.RUNNING for trial in trials]
    done = sum(length if runs else 1.0 for length, runs in zip(lengths, is_running, strict=True))
    shares = [done / config.study.num_trials]
    for limit in budget.limits:
        taken = budget.taken(limit)
        shares.append(taken / (taken + max(0.0, budget.left(limit))) if taken else 0.0)
    return min(1.0, max(*shares, 1 / (config.study.num_trials * config.train.max_epochs)))


def _trainings_after(
    config: SearchConfig, search: SimulatedSearch, assumed: Assumed, num_slots: int
) -> list[TrainConfig]:
    """The trainings after the trials that the budget allows: of finalists, or of the winners."""
    trials = search.study.trials()
    if not has_candidates(trials):
        return []
    if not config.compares_finalists:
        return [retrain_config(config, one.params) for one in selected(trials, config.study)]
    budget = Budget.of_study(config, search.study, num_slots)
    finalists = finalists_within_budget(
        config,
        search.study,
        assumed.num_val_images,
        None,
        budget.lets_train,
        budget.keeps_to_share,
    )
    params = {trial.number: trial.params for trial in trials}
    alone = [retrain_config(config, params[number]) for number in finalists.numbers[:1]]
    return [train for _, train in trainings_of(config, trials, finalists)] or alone


def _seconds_in(num_slots: int, lengths: Sequence[float]) -> float:
    """Seconds until all trainings have ended, each in the slot that is free first."""
    ends = [0.0] * num_slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)
