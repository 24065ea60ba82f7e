"""The tables of Optuna's relational storage, where their schema is the one that we know."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

KNOWN_SCHEMA: Final = "v3.2.0.a"


@dataclass(frozen=True)
class Tables:
    """Optuna's tables as SQLAlchemy's, and the engine of the database that they are in.

    `models` is Optuna's module: it knows how NaN and infinity are stored.
    """

    engine: sqlalchemy.Engine
    models: Any

    @property
    def studies(self) -> sqlalchemy.Table:
        return self._of("StudyModel")

    @property
    def study_attributes(self) -> sqlalchemy.Table:
        return self._of("StudyUserAttributeModel")

    @property
    def trials(self) -> sqlalchemy.Table:
        return self._of("TrialModel")

    @property
    def params(self) -> sqlalchemy.Table:
        return self._of("TrialParamModel")

    @property
    def curves(self) -> sqlalchemy.Table:
        return self._of("TrialIntermediateValueModel")

    @property
    def values(self) -> sqlalchemy.Table:
        return self._of("TrialValueModel")

    @property
    def attributes(self) -> sqlalchemy.Table:
        return self._of("TrialUserAttributeModel")

    @property
    def system_attributes(self) -> sqlalchemy.Table:
        return self._of("TrialSystemAttributeModel")

    def lock(self, connection: sqlalchemy.Connection, study_id: int) -> None:
        """Has all others who lock the study wait until the connection's transaction ends.

        Optuna locks the same row when it makes a trial. An UPDATE, as SQLite has no SELECT FOR
        UPDATE: it takes the whole file's lock.
        """
        study, name = self.studies, self.studies.c.study_name
        connection.execute(study.update().where(study.c.study_id == study_id).values({name: name}))

    def _of(self, model: str) -> sqlalchemy.Table:
        table: sqlalchemy.Table = getattr(self.models, model).__table__
        return table


def known_tables(storage: BaseStorage) -> Tables | None:
    """The storage's tables; None: it has none, or they are of a schema that we do not know."""
    if not isinstance(storage, RDBStorage) or storage.get_current_version() != KNOWN_SCHEMA:
        return None
    try:
        from optuna.storages._rdb import models  # private to Optuna, so it may move
    except ImportError:
        return None
    return Tables(storage.engine, models)
