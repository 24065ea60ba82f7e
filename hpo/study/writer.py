"""Writes trials to an Optuna storage, each event in one transaction where the storage allows.

Optuna has no public batch write: by its own methods a trial's end is some thirty transactions of
several statements. A relational storage is therefore written directly, by the schema of which the
version is known; any other storage, or schema, by Optuna's methods.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial

from hpo.config.search_space import Params

KNOWN_SCHEMA: Final = "v3.2.0.a"
Distributions = Mapping[str, BaseDistribution]
TRIALS: Final[Any] = models.TrialModel.__table__
PARAMS: Final[Any] = models.TrialParamModel.__table__
CURVES: Final[Any] = models.TrialIntermediateValueModel.__table__
VALUES: Final[Any] = models.TrialValueModel.__table__
ATTRIBUTES: Final[Any] = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES: Final[Any] = models.TrialSystemAttributeModel.__table__


@dataclass(frozen=True)
class Ending:
    """How a trial ends.

    Attributes:
        state: The one that it is told as.
        values: Of the objectives; None: it has none.
        attributes: What else is known of it.
        constraints: By how much it misses each; at most 0 where it does not.
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
    """What a search writes of its trials. Each call is durable when it returns.

    A call whose answer was lost is repeated with `again`.
    """

    def create(self, number: int, params: Params, distributions: Distributions) -> int:
        """A new trial, RUNNING, of the number that is next; its id."""

    def start(
        self, trial_id: int, params: Params, distributions: Distributions, *, again: bool = False
    ) -> None:
        """A WAITING trial is RUNNING from now on."""

    def report(self, trial_id: int, values: Mapping[int, float], *, again: bool = False) -> None:
        """Adds epochs to the curve."""

    def finish(self, trial_id: int, ending: Ending, *, again: bool = False) -> None:
        """Ends a trial."""


def trial_writer(storage: BaseStorage, study_id: int) -> TrialWriter:
    """The fastest way that the storage allows."""
    if isinstance(storage, RDBStorage) and storage.get_current_version() == KNOWN_SCHEMA:
        return DirectWriter(storage.engine, study_id)
    return OptunaWriter(storage, study_id)


class OptunaWriter:
    """By Optuna's own methods."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def create(self, number: int, params: Params, distributions: Distributions) -> int:
        trial = create_trial(
            state=TrialState.RUNNING, params=params, distributions=dict(distributions)
        )
        return self._storage.create_new_trial(self._study_id, trial)

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


class DirectWriter:
    """Into the tables of Optuna's relational storage.

    One driver at a time has the study, so numbers need no lock.
    """

    def __init__(self, engine: sqlalchemy.Engine, study_id: int) -> None:
        self._engine, self._study_id = engine, study_id

    def create(self, number: int, params: Params, distributions: Distributions) -> int:
        row = {
            "number": number,
            "study_id": self._study_id,
            "state": TrialState.RUNNING,
            "datetime_start": _now(),
        }
        with self._engine.begin() as connection:
            inserted = connection.execute(TRIALS.insert(), row)
            assert inserted.inserted_primary_key is not None
            trial_id = int(inserted.inserted_primary_key[0])
            self._write_params(connection, trial_id, params, distributions, again=False)
        return trial_id

    def start(
        self, trial_id: int, params: Params, distributions: Distributions, *, again: bool = False
    ) -> None:
        with self._engine.begin() as connection:
            self._write_params(connection, trial_id, params, distributions, again=again)
            self._set_state(connection, trial_id, state=TrialState.RUNNING, datetime_start=_now())

    def report(self, trial_id: int, values: Mapping[int, float], *, again: bool = False) -> None:
        as_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        rows = []
        for epoch, value in values.items():
            stored, kind = as_stored(value)
            row = {"step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}
            rows.append(row)
        with self._engine.begin() as connection:
            _write(connection, CURVES, trial_id, rows, again=again)

    def finish(self, trial_id: int, ending: Ending, *, again: bool = False) -> None:
        values = []
        for objective, value in enumerate(ending.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            values.append({"objective": objective, "value": stored, "value_type": kind})
        with self._engine.begin() as connection:
            # Some may be there already: of another program's, or of a cut-short end.
            _write(connection, ATTRIBUTES, trial_id, _as_rows(ending.attributes), again=True)
            system = _as_rows(ending.system_attributes)
            _write(connection, SYSTEM_ATTRIBUTES, trial_id, system, again=True)
            _write(connection, VALUES, trial_id, values, again=again)
            self._set_state(connection, trial_id, state=ending.state, datetime_complete=_now())

    def _set_state(self, connection: sqlalchemy.Connection, trial_id: int, **values: Any) -> None:
        connection.execute(TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(**values))

    def _write_params(
        self,
        connection: sqlalchemy.Connection,
        trial_id: int,
        params: Params,
        distributions: Distributions,
        *,
        again: bool,
    ) -> None:
        rows = [
            {
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]
        _write(connection, PARAMS, trial_id, rows, again=again)


def _write(
    connection: sqlalchemy.Connection,
    table: sqlalchemy.Table,
    trial_id: int,
    rows: list[dict[str, Any]],
    *,
    again: bool,
) -> None:
    """Adds a trial's rows; those that an earlier try may have left are of the same keys."""
    if not rows:
        return
    if again:
        key = next(iter(rows[0]))
        written = table.c[key].in_([row[key] for row in rows])
        connection.execute(table.delete().where((table.c.trial_id == trial_id) & written))
    connection.execute(table.insert(), [{"trial_id": trial_id, **row} for row in rows])


def _as_rows(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _now() -> datetime:
    """In UTC and without a zone, as Optuna's tables have it."""
    return datetime.now(UTC).replace(tzinfo=None)
