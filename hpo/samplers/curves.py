"""Optuna's interface to the surrogate, for schedulers that do not pause trials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hpo.config.rungs import half_way, next_rung, rungs
from hpo.config.search_space import ARCHITECTURE, Params, Space, Value, suggest_params

if TYPE_CHECKING:
    from hpo.surrogate.encoding import UnitCube
    from hpo.surrogate.rows import Observations, Phase


class CurveSampler(optuna.samplers.BaseSampler):
    """Proposes params by a surrogate of all trials' whole curves, running trials included.

    Args:
        space: The searched parameters.
        seed: The search's seed, for the surrogate.
        own_seed: The trial's seed, for params that are drawn at random.
    """

    def __init__(self, space: Space, seed: int, own_seed: int) -> None:
        self._space, self._seed = space, seed
        self._independent = optuna.samplers.RandomSampler(seed=own_seed)
        self._proposed: Params = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if "fixed_params" in trial.system_attrs:  # chosen by someone else
            return {}
        self._proposed = self._propose(study, trial.number)
        fixed = FixedTrial(self._proposed)
        suggest_params(fixed, self._space)
        return dict(fixed.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {name: self._proposed[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _propose(self, study: optuna.Study, number: int) -> Params:
        # SciPy takes a second to import, and few searches need it.
        from hpo.surrogate.candidates import Candidates
        from hpo.surrogate.surrogate import Surrogate

        trials = [t for t in study.get_trials(deepcopy=False) if t.number != number and t.params]
        # A trial that was pruned before its first epoch has an infeasible architecture.
        ruled_out = {
            _architecture(trial.params)
            for trial in trials
            if trial.state == TrialState.PRUNED and not trial.intermediate_values
        }
        is_allowed = (lambda p: _architecture(p) not in ruled_out) if ruled_out else None
        candidates = Candidates(self._space, self._seed, is_allowed)
        maximise = study.direction == optuna.study.StudyDirection.MAXIMIZE
        observed = _observed(trials, candidates.cube, maximise=maximise)
        return Surrogate(candidates, self._seed).propose(observed)


def _observed(
    trials: Sequence[FrozenTrial], cube: "UnitCube", *, maximise: bool
) -> "Observations":
    """The trials as the surrogate sees them: at the default rungs and their last epochs."""
    from hpo.surrogate.rows import Observations, ObservedTrial

    max_epochs = max((trial.last_step or 1 for trial in trials), default=1)
    compete_at, sign = rungs(max_epochs), 1.0 if maximise else -1.0
    observed = {}
    for trial in trials:
        curve = {epoch: sign * value for epoch, value in trial.intermediate_values.items()}
        stop = max_epochs if trial.number == 0 else next_rung(max(curve, default=0), compete_at)
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            curve.setdefault(max_epochs, sign * trial.value)
        point, phase = cube.encode(trial.params), _phase(trial)
        observed[trial.number] = ObservedTrial(point, curve, phase, stop)
    seen_at = frozenset({half_way(compete_at[0]), *compete_at})
    return Observations(observed, max_epochs, seen_at)


def _phase(trial: FrozenTrial) -> "Phase":
    from hpo.surrogate.rows import Phase

    if not trial.state.is_finished():
        return Phase.RUNNING
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return Phase.COMPLETE
    was_given_up = trial.state == TrialState.PRUNED and trial.intermediate_values
    return Phase.PRUNED if was_given_up else Phase.FAILED


def _architecture(params: Params) -> tuple[Value, ...]:
    return tuple(params.get(path) for path in ARCHITECTURE)
