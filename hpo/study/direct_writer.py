"""Writes trials directly into the tables of Optuna's relational storage.

Optuna has no public batch write: with its own methods a trial's end takes some thirty
transactions of several statements. So we write directly into a relational storage whose schema we
know, one transaction an event, and use Optuna's methods for any other storage or schema.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hpo.config.search_space import Params
from hpo.study.tables import Tables, known_tables
from hpo.study.writer import Distributions, Ending, OptunaWriter, TrialWriter


def trial_writer(storage: BaseStorage, study_id: int) -> TrialWriter:
    """The fastest writer that the storage allows."""
    tables = known_tables(storage)
    return OptunaWriter(storage, study_id) if tables is None else DirectWriter(tables, study_id)


class DirectWriter:
    """Writes into the tables of Optuna's relational storage, one transaction an event."""

    def __init__(self, tables: Tables, study_id: int) -> None:
        self._tables, self._study_id = tables, study_id

    def num_trials(self) -> int:
        with self._tables.engine.connect() as connection:
            return self._count(connection)

    def create(
        self, number: int, params: Params, distributions: Distributions
    ) -> tuple[int, int] | None:
        row = {
            "number": number,
            "study_id": self._study_id,
            "state": TrialState.RUNNING,
            "datetime_start": _now(),
        }
        with self._begin() as connection:
            self._tables.lock(connection, self._study_id)
            if self._count(connection) != number:
                return None
            inserted = connection.execute(self._tables.trials.insert(), row)
            assert inserted.inserted_primary_key is not None
            trial_id = int(inserted.inserted_primary_key[0])
            self._write_params(connection, trial_id, params, distributions, again=False)
        return trial_id, number

    def start(
        self, trial_id: int, params: Params, distributions: Distributions, *, again: bool = False
    ) -> None:
        with self._begin() as connection:
            self._write_params(connection, trial_id, params, distributions, again=again)
            self._set_state(connection, trial_id, state=TrialState.RUNNING, datetime_start=_now())

    def report(self, trial_id: int, values: Mapping[int, float], *, again: bool = False) -> None:
        as_stored = (
            self._tables.models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        )
        rows = []
        for epoch, value in values.items():
            stored, kind = as_stored(value)
            row = {"step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}
            rows.append(row)
        with self._begin() as connection:
            _write(connection, self._tables.curves, trial_id, rows, again=again)

    def finish(self, trial_id: int, ending: Ending, *, again: bool = False) -> None:
        values = []
        for objective, value in enumerate(ending.values or ()):
            stored, kind = self._tables.models.TrialValueModel.value_to_stored_repr(value)
            values.append({"objective": objective, "value": stored, "value_type": kind})
        with self._begin() as connection:
            # Another program, or an interrupted `finish`, may have written some of these rows.
            _write(
                connection,
                self._tables.attributes,
                trial_id,
                _as_rows(ending.attributes),
                again=True,
            )
            system = _as_rows(ending.system_attributes)
            _write(connection, self._tables.system_attributes, trial_id, system, again=True)
            _write(connection, self._tables.values, trial_id, values, again=again)
            self._set_state(connection, trial_id, state=ending.state, datetime_complete=_now())

    def _count(self, connection: sqlalchemy.Connection) -> int:
        """How many trials the study has; also the number that Optuna gives the next one."""
        trials = self._tables.trials.c
        query = sqlalchemy.select(sqlalchemy.func.count(trials.trial_id))
        return connection.scalar(query.where(trials.study_id == self._study_id)) or 0

    def _set_state(self, connection: sqlalchemy.Connection, trial_id: int, **values: Any) -> None:
        trials = self._tables.trials
        connection.execute(trials.update().where(trials.c.trial_id == trial_id).values(**values))

    def _begin(self) -> AbstractContextManager[sqlalchemy.Connection]:
        return self._tables.engine.begin()

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
        _write(connection, self._tables.params, trial_id, rows, again=again)


def _write(
    connection: sqlalchemy.Connection,
    table: sqlalchemy.Table,
    trial_id: int,
    rows: list[dict[str, Any]],
    *,
    again: bool,
) -> None:
    """Adds a trial's rows; `again` first removes rows of the same keys of an earlier try."""
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
    """The present time in UTC without a zone, as Optuna's tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)
