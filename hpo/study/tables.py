"""The tables of Optuna's relational storage, if their schema is the one we know."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

KNOWN_SCHEMA: Final = "v3.2.0.a"


@dataclass(frozen=True)
class Tables:
    """Optuna's tables as SQLAlchemy's.

    Attributes:
        engine: The engine of the database that has the tables.
        models: Optuna's module of table models, which knows how NaN and infinity are stored.
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
        """Locks the study for others until the connection's transaction ends.

        Optuna locks the same row when it makes a trial. The lock is an UPDATE, as SQLite has no
        SELECT FOR UPDATE; there it locks the whole file.
        """
        study, name = self.studies, self.studies.c.study_name
        connection.execute(study.update().where(study.c.study_id == study_id).values({name: name}))

    def _of(self, model: str) -> sqlalchemy.Table:
        table: sqlalchemy.Table = getattr(self.models, model).__table__
        return table


def known_tables(storage: BaseStorage) -> Tables | None:
    """The storage's tables; None: it is not relational, or its schema is unknown to us."""
    if not isinstance(storage, RDBStorage) or storage.get_current_version() != KNOWN_SCHEMA:
        return None
    try:
        from optuna.storages._rdb import models  # private to Optuna, so it may move
    except ImportError:
        return None
    return Tables(storage.engine, models)
