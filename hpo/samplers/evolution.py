"""Optuna's evolutionary samplers, without a state of their own.

Optuna's own classes keep state in the study (each trial's generation; a pickled CMA-ES) and learn
from complete trials only. Ours draw by nothing but the ended trials, in the order of numbers: a
resumed search draws what an unbroken one would have, and a stopped trial counts by its value.
"""

import math
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from hpo.config.search_space import CategoricalParameter, Space
from hpo.surrogate.encoding import UnitCube

POPULATION: Final = 10  # Optuna's default, 50, is more than most searches' trials.
SIGMA: Final = 1 / 6  # Source: Optuna's CmaEsSampler, a sixth of each range.


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The complete and pruned trials, which a sampler learns from, in order of numbers."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in study.get_trials(deepcopy=False, states=states) if t.params]


class CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES over the numeric parameters without `when`, started at the default configuration.

    CMA-ES is told the ended trials, a generation at a time. Choices and conditional parameters are
    drawn at random, as in Optuna's class.
    """

    def __init__(self, space: Space, own_seed: int) -> None:
        super().__init__(seed=own_seed, warn_independent_sampling=False)
        self._own_seed = own_seed
        self._cube = UnitCube(
            {
                name: parameter
                for name, parameter in space.items()
                if not isinstance(parameter, CategoricalParameter) and not parameter.when
            }
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if "fixed_params" in trial.system_attrs:  # chosen by someone else
            return {}
        ended = ended_trials(study)
        return {name: ended[0].distributions[name] for name in self._cube.names if ended}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        import cmaes  # only a search with this sampler needs it

        sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
        points = [(self._cube.encode(t.params), _cost(t, sign)) for t in ended_trials(study)]
        mean, _ = points[0]
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        search = cmaes.CMA(mean=mean, sigma=SIGMA, bounds=bounds, seed=self._own_seed)
        size = search.population_size
        for first in range(0, len(points) - size + 1, size):
            search.tell(points[first : first + size])
        return dict(self._cube.decode(search.ask()))


def _cost(trial: FrozenTrial, sign: float) -> float:
    """The loss that CMA-ES minimises; infinite without a value or if a constraint is missed."""
    is_feasible = all(violation <= 0 for violation in trial.constraints.values())
    return sign * trial.value if trial.value is not None and is_feasible else math.inf


class _SteadyState(BaseGASampler):
    """A genetic algorithm whose parents are the fittest of all trials that have ended.

    Trials end one by one, so there are no generations to take parents from.

    Source: Durillo et al., "On the Effect of the Steady-State Selection Scheme in Multi-Objective
    Genetic Algorithms", 2009.
    """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if "fixed_params" in trial.system_attrs:  # chosen by someone else
            return {}
        shared = intersection_search_space(self.get_population(study, 0), include_pruned=True)
        return {name: d for name, d in shared.items() if not d.single()}

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return int(len(self.get_population(study, 0)) >= POPULATION)

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return [trial for trial in ended_trials(study) if trial.values]

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return self.select_parent(study, generation) if generation else []


class SteadyNSGAII(_SteadyState, optuna.samplers.NSGAIISampler):
    """NSGA-II in steady state."""

    def __init__(self, own_seed: int) -> None:
        optuna.samplers.NSGAIISampler.__init__(self, population_size=POPULATION, seed=own_seed)


class SteadyNSGAIII(_SteadyState, optuna.samplers.NSGAIIISampler):
    """NSGA-III in steady state."""

    def __init__(self, own_seed: int) -> None:
        optuna.samplers.NSGAIIISampler.__init__(self, population_size=POPULATION, seed=own_seed)
