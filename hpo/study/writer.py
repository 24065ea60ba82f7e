"""The writer's interface: what a search writes of its trials; and a writer for any storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from hpo.config.search_space import Params

Distributions = Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class Ending:
    """How a trial ends.

    Attributes:
        state: The state that Optuna is told: COMPLETE, PRUNED or FAIL.
        values: Values of the objectives, in the study's order; None: the trial has none.
        attributes: User attributes of the trial.
        constraints: By how much the trial misses each constraint, by name; at most 0: it is kept.
    """

    state: TrialState
    values: Sequence[float] | None
    attributes: Mapping[str, Any]
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def system_attributes(self) -> dict[str, Any]:
        """The constraints as Optuna stores them."""
        return create_trial(
            state=TrialState.PRUNED, constraints=dict(self.constraints)
        ).system_attrs


class TrialWriter(Protocol):
    """Writes a search's trials; a write is in the storage when the call returns.

    A call whose answer was lost is repeated with `again=True`.
    """

    def num_trials(self) -> int:
        """How many trials the study has, whoever made them; also the next trial's number."""

    def create(
        self, number: int, params: Params, distributions: Distributions
    ) -> tuple[int, int] | None:
        """Makes a RUNNING trial, which should get the number `number`.

        Returns:
            The trial's id and its number, which no other trial has; None: another program has
            added trials, so `number` is not the next one, and no trial was made.
        """

    def start(
        self, trial_id: int, params: Params, distributions: Distributions, *, again: bool = False
    ) -> None:
        """Makes a WAITING trial RUNNING, with these params."""

    def report(self, trial_id: int, values: Mapping[int, float], *, again: bool = False) -> None:
        """Adds epochs to a trial's curve; `values` is the metric by epoch."""

    def finish(self, trial_id: int, ending: Ending, *, again: bool = False) -> None:
        """Ends a RUNNING trial."""


class OptunaWriter:
    """Writes to any storage by Optuna's own methods, several transactions an event."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def num_trials(self) -> int:
        return self._storage.get_n_trials(self._study_id)

    def create(
        self, number: int, params: Params, distributions: Distributions
    ) -> tuple[int, int] | None:
        if self.num_trials() != number:
            return None
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=dict(distributions)
        )
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        return trial_id, self._storage.get_trial_number_from_id(trial_id)

    def start(
        self, trial_id: int, params: Params, distributions: Distributions, *, again: bool = False
    ) -> None:
        for name, value in params.items():
            distribution = distributions[name]
            internal = distribution.to_internal_repr(value)
            self._storage.set_trial_param(trial_id, name, internal, distribution)
        self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    def report(self, trial_id: int, values: Mapping[int, float], *, again: bool = False) -> None:
        for epoch, value in values.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)

    def finish(self, trial_id: int, ending: Ending, *, again: bool = False) -> None:
        if again and self._storage.get_trial(trial_id).state.is_finished():
            return
        for key, attribute in ending.attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, attribute)
        for key, attribute in ending.system_attributes.items():
            self._storage.set_trial_system_attr(trial_id, key, attribute)
        self._storage.set_trial_state_values(trial_id, ending.state, ending.values)
