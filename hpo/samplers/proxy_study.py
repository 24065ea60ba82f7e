"""The study that Optuna's sampler sees: in memory, with a bounded number of trials."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpo import pareto
from hpo.config.schema import StudyConfig
from hpo.config.search_space import Params, Space, suggest_params
from hpo.samplers.factory import create_sampler, no_experimental_warnings
from hpo.samplers.grid import Grid

# How many (best, latest) trials each sampler sees.
BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "curves": (100, 100), "tpe": (250, 750), "gp": (100, 100), "qmc": (10, 0), "cmaes": (0, 1000),
    "nsga2": (100, 0), "nsga3": (100, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """How much of a long study a sampler sees.

    For each draw a sampler reads all trials that it sees: TPE takes 0.4 s over 10,000. So it sees
    the best trials, to learn from, and the latest ones, which show where it has been.

    Attributes:
        num_best: How many of the best trials the sampler sees.
        num_latest: How many of the latest trials the sampler sees.
        num_before_rebuild: How many trials end before the study is rebuilt with fewer.
    """

    num_best: int
    num_latest: int
    num_before_rebuild: int = 100

    @classmethod
    def of(cls, sampler: str) -> Self:
        """The bounds of a sampler, by its name; random and grid need no trials."""
        return cls(*BOUNDS.get(sampler, (0, 0)))

    @property
    def num_seen(self) -> int:
        """The most ended trials that the sampler sees."""
        return self.num_best + self.num_latest + self.num_before_rebuild


class ProxyStudy:
    """Draws params of new trials, by an Optuna study in memory that is told of all trials.

    A draw depends on the seed, the trial's number and the known trials, so a resumed search draws
    what an unbroken one would have drawn. In a study so long that trials are forgotten this holds
    with one slot only; with several, the order in which trials ended matters a little.

    Args:
        config: Has the sampler, the seed and the objectives.
        space: The searched parameters.
        bounds: How much of a long study the sampler sees; None: the sampler's usual bounds.
    """

    def __init__(self, config: StudyConfig, space: Space, bounds: Bounds | None = None) -> None:
        self._config, self._space = config, space
        self._bounds = bounds or Bounds.of(config.sampler or "tpe")
        self._directions = [direction for _, direction in config.objectives]
        self._has_curves = not config.has_several_objectives
        self._finished: dict[int, FrozenTrial] = {}
        self._running: dict[int, Trial] = {}
        self._paused: set[int] = set()
        self._num_since_rebuild = 0
        self._study = self._new_study()
        self._grid = Grid(space, config.seed) if config.sampler == "grid" else None

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(directions=self._directions, pruner=optuna.pruners.NopPruner())

    @property
    def num_seen(self) -> int:
        """How many trials the sampler sees now."""
        return len(self._study.get_trials(deepcopy=False))

    @property
    def is_exhausted(self) -> bool:
        """Whether no params are left to draw, as at a grid's end."""
        return self._grid is not None and self._grid.is_exhausted

    def add(self, trial: FrozenTrial) -> None:
        """Adds a trial that was not drawn here; call it in the order of trial numbers."""
        seen = create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values if self._has_curves else None,
            constraints=trial.constraints,
        )
        if self._grid is not None:
            self._grid.take(trial.params)
        if trial.state.is_finished():
            self._add_finished(trial.number, seen)
        else:
            self._add_running(trial.number, seen)

    def draw(
        self, number: int, fixed: Params | None = None
    ) -> tuple[Params, dict[str, BaseDistribution]]:
        """Draws a new trial's params; returns the params and their distributions.

        Args:
            number: The trial's number.
            fixed: Params that are taken as they are; the sampler draws the others. None: all.
        """
        if fixed is None and self._grid is not None:
            fixed = self._grid.next_params()
        study = self._study if fixed is not None else self._as_seen()
        study.sampler = create_sampler(self._config, self._space, number)
        if fixed is not None:
            study.enqueue_trial(fixed)
        with no_experimental_warnings():
            trial = study.ask()
            params = suggest_params(trial, self._space)
        if self._grid is not None:
            self._grid.take(params)
        if study is self._study:
            self._running[number] = trial
        else:
            self._add_running(number, study._storage.get_trial(trial._trial_id))
        return params, trial.distributions

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Adds epochs to a trial's curve; with several objectives Optuna keeps no curves."""
        self._paused.discard(number)
        if not self._has_curves:
            return
        for epoch, value in values.items():
            self._running[number].report(value, epoch)

    def pause(self, number: int) -> None:
        """Shows a trial as pruned until it reports again, so that samplers learn its curve."""
        self._paused.add(number)

    def finish(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        constraints: Mapping[str, float] | None = None,
    ) -> list[float] | None:
        """Ends a trial; returns Optuna's values for it: of a pruned trial the last epoch's."""
        self._paused.discard(number)
        running = self._running.pop(number)
        for name, violation in (constraints or {}).items():
            running.set_constraint(name, violation)
        trial = self._study.tell(running, values, state)
        self._finished[number] = trial
        self._forget()
        kept: list[float] | None = trial.values
        return kept

    def _add_finished(self, number: int, trial: FrozenTrial) -> None:
        self._study.add_trial(trial)
        self._finished[number] = trial
        self._forget()

    def _add_running(self, number: int, trial: FrozenTrial) -> None:
        self._study.add_trial(trial)
        added = self._study.get_trials(deepcopy=False)[-1]
        self._running[number] = Trial(self._study, added._trial_id)

    def _forget(self) -> None:
        """Rebuilds the study with the bounded trials now and then: Optuna's cannot drop any."""
        self._num_since_rebuild += 1
        bounds = self._bounds
        is_early = self._num_since_rebuild < bounds.num_before_rebuild
        if is_early or len(self._finished) < bounds.num_seen:
            return
        self._num_since_rebuild = 0
        by_number = sorted(self._finished)
        kept = set(by_number[-bounds.num_latest :]) if bounds.num_latest else set()
        # QMC takes its search space from the first trial that it sees.
        complete = (n for n in by_number if self._finished[n].state == TrialState.COMPLETE)
        kept |= set(itertools.islice(complete, 1))
        kept |= set(self._best(by_number)[: bounds.num_best])
        self._finished = {n: self._finished[n] for n in by_number if n in kept}
        running = {number: self._frozen(number) for number in self._running}
        self._study, self._running = self._new_study(), {}
        for number in sorted(self._finished.keys() | running.keys()):
            if number in running:
                self._add_running(number, running[number])
            else:
                self._study.add_trial(self._finished[number])

    def _frozen(self, number: int) -> FrozenTrial:
        """A running trial as the study has it now."""
        return self._study._storage.get_trial(self._running[number]._trial_id)

    def _as_seen(self) -> optuna.Study:
        """The study, or a copy in which paused and ruled out trials have other states.

        In the copy paused trials are pruned; in the study itself a pruned trial could not run
        again. Optuna's GP learns from complete trials only, and would propose configurations that
        were ruled out again and again. So it sees these trials as complete and infeasible, with
        median values.
        """
        ruled_out = self._ruled_out() if self._config.sampler == "gp" else {}
        if not self._paused and not ruled_out:
            return self._study
        study = self._new_study()
        for number in sorted(self._finished.keys() | self._running.keys()):
            trial = ruled_out.get(number) or self._finished.get(number) or self._frozen(number)
            study.add_trial(_as_pruned(trial) if number in self._paused else trial)
        return study

    def _ruled_out(self) -> dict[int, FrozenTrial]:
        """Trials ruled out before their training, as complete ones with median values."""
        complete = [t for t in self._finished.values() if t.state == TrialState.COMPLETE]
        if not complete:
            return {}
        values = np.median([trial.values for trial in complete], axis=0).tolist()
        names = tuple(complete[0].constraints)  # the GP needs the same names in all trials
        return {
            number: create_trial(
                values=values,
                params=trial.params,
                distributions=trial.distributions,
                constraints={name: trial.constraints.get(name, 0.0) for name in names},
            )
            for number, trial in self._finished.items()
            if trial.state == TrialState.PRUNED
            and not trial.intermediate_values
            and any(violation > 0 for violation in trial.constraints.values())
        }

    def _best(self, numbers: Sequence[int]) -> list[int]:
        """The numbers in order, best first: complete trials by value, then others by `_rank`."""
        complete = [n for n in numbers if self._finished[n].state == TrialState.COMPLETE]
        others = sorted(set(numbers) - set(complete), key=lambda n: self._rank(self._finished[n]))
        if not complete:
            return others
        signs = [-1.0 if direction == "maximize" else 1.0 for direction in self._directions]
        losses = np.array([self._finished[n].values for n in complete]) * signs
        return [complete[row] for row in pareto.best_rows(losses, self._bounds.num_best)] + others

    def _rank(self, trial: FrozenTrial) -> tuple[float, float]:
        """Sort key of an incomplete trial: later last epochs first, then better last values."""
        sign = -1.0 if self._directions[0] == "maximize" else 1.0
        epoch = trial.last_step
        value = math.nan if epoch is None else trial.intermediate_values[epoch]
        return -float(epoch or 0), math.inf if math.isnan(value) else sign * value


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A running trial as if it had been pruned after its last epoch."""
    value = trial.intermediate_values.get(trial.last_step or 0, math.nan)
    return create_trial(
        state=TrialState.PRUNED,
        value=None if math.isnan(value) else value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
    )
