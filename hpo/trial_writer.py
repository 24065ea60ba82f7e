"""Writes trials to an Optuna storage, each event in one transaction where the storage allows.

Optuna has no public batch write: by its own methods a trial's end is some thirty transactions of
several statements. A relational storage is therefore written directly, by the schema of which the
version is known; any other storage, or schema, by Optuna's methods.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search_space import Params

KNOWN_SCHEMA: Final = "v3.2.0.a"
Distributions = Mapping[str, BaseDistribution]


class TrialWriter(Protocol):
    """What a search writes of its trials. Each call is durable when it returns.

    A call may be repeated when its answer was lost.
    """

    def create(self, params: Params, distributions: Distributions) -> tuple[int, int]:
        """A new trial, RUNNING; its id and its number."""

    def start(self, trial_id: int, params: Params, distributions: Distributions) -> None:
        """A WAITING trial is RUNNING from now on."""

    def report(self, trial_id: int, values: Mapping[int, float]) -> None:
        """Adds epochs to the curve."""

    def finish(
        self, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
    ) -> None:
        """Ends a trial."""


def trial_writer(storage: BaseStorage, study_id: int) -> TrialWriter:
    """The fastest way that the storage allows."""
    if isinstance(storage, RDBStorage) and storage.get_current_version() == KNOWN_SCHEMA:
        return DirectWriter(storage.engine, study_id)
    return OptunaWriter(storage, study_id)


def running_trial(params: Params, distributions: Distributions) -> FrozenTrial:
    """A trial as it begins."""
    return create_trial(state=TrialState.RUNNING, params=params, distributions=dict(distributions))


class OptunaWriter:
    """By Optuna's own methods."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def create(self, params: Params, distributions: Distributions) -> tuple[int, int]:
        trial = running_trial(params, distributions)
        trial.datetime_start = datetime.now()
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        return trial_id, self._storage.get_trial_number_from_id(trial_id)

    def start(self, trial_id: int, params: Params, distributions: Distributions) -> None:
        for name, value in params.items():
            distribution = distributions[name]
            internal = distribution.to_internal_repr(value)
            self._storage.set_trial_param(trial_id, name, internal, distribution)
        self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    def report(self, trial_id: int, values: Mapping[int, float]) -> None:
        for epoch, value in values.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)

    def finish(
        self, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
    ) -> None:
        if self._storage.get_trial(trial_id).state.is_finished():
            return
        for key, attribute in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, attribute)
        values = None if value is None else [value]
        self._storage.set_trial_state_values(trial_id, state, values)


class DirectWriter:
    """Into the tables of Optuna's relational storage.

    Rows are replaced, not added to, so a repeated call leaves what the first one left. One
    driver at a time has the study, so numbers need no lock.
    """

    def __init__(self, engine: sqlalchemy.Engine, study_id: int) -> None:
        self._engine, self._study_id = engine, study_id

    def create(self, params: Params, distributions: Distributions) -> tuple[int, int]:
        trials = models.TrialModel.__table__
        in_study = sqlalchemy.select(sqlalchemy.func.count()).where(
            trials.c.study_id == self._study_id
        )
        with self._engine.begin() as connection:
            number = connection.execute(in_study).scalar_one()
            inserted = connection.execute(
                trials.insert().values(
                    number=number,
                    study_id=self._study_id,
                    state=TrialState.RUNNING,
                    datetime_start=_now(),
                )
            )
            assert inserted.inserted_primary_key is not None
            trial_id = int(inserted.inserted_primary_key[0])
            self._write_params(connection, trial_id, params, distributions)
        return trial_id, int(number)

    def start(self, trial_id: int, params: Params, distributions: Distributions) -> None:
        with self._engine.begin() as connection:
            self._write_params(connection, trial_id, params, distributions)
            self._set_state(connection, trial_id, state=TrialState.RUNNING, datetime_start=_now())

    def report(self, trial_id: int, values: Mapping[int, float]) -> None:
        as_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        rows = []
        for epoch, value in values.items():
            stored, kind = as_stored(value)
            row = {"step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}
            rows.append(row)
        table = models.TrialIntermediateValueModel.__table__
        with self._engine.begin() as connection:
            self._replace(connection, table, table.c.step, trial_id, rows)

    def finish(
        self, trial_id: int, state: TrialState, value: float | None, attributes: Mapping[str, Any]
    ) -> None:
        keyed = models.TrialUserAttributeModel.__table__
        facts = [{"key": key, "value_json": json.dumps(a)} for key, a in attributes.items()]
        valued = models.TrialValueModel.__table__
        values = []
        if value is not None:
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            values.append({"objective": 0, "value": stored, "value_type": kind})
        with self._engine.begin() as connection:
            self._replace(connection, keyed, keyed.c.key, trial_id, facts)
            self._replace(connection, valued, valued.c.objective, trial_id, values)
            self._set_state(connection, trial_id, state=state, datetime_complete=_now())

    def _set_state(self, connection: sqlalchemy.Connection, trial_id: int, **values: Any) -> None:
        trials = models.TrialModel.__table__
        connection.execute(trials.update().where(trials.c.trial_id == trial_id).values(**values))

    def _write_params(
        self,
        connection: sqlalchemy.Connection,
        trial_id: int,
        params: Params,
        distributions: Distributions,
    ) -> None:
        rows = [
            {
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(distributions[name]),
            }
            for name, value in params.items()
        ]
        table = models.TrialParamModel.__table__
        self._replace(connection, table, table.c.param_name, trial_id, rows)

    def _replace(
        self,
        connection: sqlalchemy.Connection,
        table: sqlalchemy.Table,
        key: sqlalchemy.Column[Any],
        trial_id: int,
        rows: list[dict[str, Any]],
    ) -> None:
        if not rows:
            return
        keys = [row[key.name] for row in rows]
        known = (table.c.trial_id == trial_id) & key.in_(keys)
        connection.execute(table.delete().where(known))
        connection.execute(table.insert(), [{"trial_id": trial_id, **row} for row in rows])


def _now() -> datetime:
    """In UTC and without a zone, as Optuna's tables have it."""
    return datetime.now(UTC).replace(tzinfo=None)
