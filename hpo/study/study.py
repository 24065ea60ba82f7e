"""The Optuna study, the search's only memory. Only this module reads and writes it."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hpo.config.schema import SearchConfig, StudyConfig
from hpo.config.search_space import Params, Space
from hpo.errors import StudyError
from hpo.study.asking import Asking
from hpo.study.direct_writer import trial_writer
from hpo.study.driver import DriverRecord, driver_record
from hpo.study.frozen import frozen_of, objective_values, summary_of
from hpo.study.gate import StudyGate
from hpo.study.metadata import StudyMetadata
from hpo.study.storage import open_storage, without_password
from hpo.study.trial import CARRIED_OVER_FROM, FACTS_SO_FAR, Proposal, TrialSummary
from hpo.study.writer import Ending

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SearchStudy:
    """A study whose trials have the states that Optuna means by them.

    A trial is COMPLETE, with its best value, only if it ran its length or stopped itself; PRUNED
    if the scheduler stopped it or it diverged; FAIL if it broke. Every epoch is in its curve.

    Attributes:
        metadata: The study's facts beside its trials.
        gate: The way by which the study is written and read; waits for a database that is away.
    """

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, config: StudyConfig, space: Space
    ) -> None:
        self._study, self._config, self._space = study, config, space
        self._writer = trial_writer(storage, study._study_id)
        self._backend = storage
        self.gate = StudyGate()
        self.metadata = StudyMetadata(study, self.gate)
        self._asking = Asking(study, self._writer, self.gate, config, space)

    @classmethod
    def create(cls, url: str, config: StudyConfig, space: Space) -> Self:
        """A new, empty study.

        Raises:
            StudyError: The storage cannot be used, or has a study of this name.
        """
        storage = open_storage(url)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=config.name,
                directions=[direction for _, direction in config.objectives],
                pruner=optuna.pruners.NopPruner(),
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise StudyError(
                f"study {config.name!r} exists already in {without_password(url)}"
            ) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([name for name, _ in config.objectives])
        return cls(study, storage, config, space)

    @classmethod
    def in_memory(cls, config: StudyConfig, space: Space) -> Self:
        """A new study in memory, gone when the process ends."""
        directions = [direction for _, direction in config.objectives]
        study = optuna.create_study(directions=directions, pruner=optuna.pruners.NopPruner())
        return cls(study, study._storage, config, space)

    @classmethod
    def find(cls, url: str, config: StudyConfig, space: Space) -> Self | None:
        """The existing study; None: there is no study of this name.

        Raises:
            StudyError: The storage cannot be used.
        """
        storage = open_storage(url)
        try:
            study = optuna.load_study(storage=storage, study_name=config.name)
        except KeyError:
            return None
        return cls(study, storage, config, space)

    @classmethod
    def open(cls, url: str, config: StudyConfig, space: Space) -> Self:
        """The existing study.

        Raises:
            StudyError: The storage cannot be used, or has no study of this name.
        """
        study = cls.find(url, config, space)
        if study is None:
            raise StudyError(f"no study {config.name!r} in {without_password(url)}")
        return study

    @classmethod
    def of_search(cls, url: str, name: str) -> tuple[Self, SearchConfig]:
        """A study with the config of the search that made it.

        Raises:
            StudyError: The storage cannot be used, has no study of this name, or the study was
                not made by this program.
        """
        storage = open_storage(url)
        try:
            study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            raise StudyError(f"no study {name!r} in {without_password(url)}") from None
        found = cls.of_optuna(study, storage)
        if found is None:
            raise StudyError(
                f"study {name!r} in {without_password(url)} was not made by this program"
            )
        return found

    @classmethod
    def of_optuna(
        cls, study: optuna.Study, storage: BaseStorage
    ) -> tuple[Self, SearchConfig] | None:
        """Optuna's study with the config of its search; None: this program did not make it."""
        values = study.user_attrs.get("search_config")
        if values is None:
            return None
        config = SearchConfig.model_validate(values)
        return cls(study, storage, config.study, config.space), config

    def enqueue_first_trials(self, default: Params) -> None:
        """Enqueues the default configuration, then those of `study.enqueue` and `warm_start`.

        May be called again: a configuration that was tried or waits already is not added twice.
        """
        for params in (default, *self._config.enqueue, *(self.metadata.warm_start or ())):
            self.gate.write(functools.partial(self._enqueue, params))
        self._asking.forget()

    def _enqueue(self, params: Params, _is_retry: bool) -> None:
        self._study.enqueue_trial(params, skip_if_exists=True)

    @property
    def has_waiting(self) -> bool:
        """Whether enqueued trials are yet to start."""
        return bool(self._asking.live.waiting)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no trial left to ask for, as at the end of a grid."""
        live = self._asking.live
        return not live.waiting and live.sampling.is_exhausted

    def ask(self, params: Params | None = None) -> Proposal:
        """A trial that is RUNNING from now on.

        The first enqueued trial goes first, whoever enqueued it. If the space does not have its
        params, the trial cannot run, and the caller has to end it; see Proposal. Otherwise a new
        trial is made with `params` (None: the sampler draws them). The sampler's random state is
        derived from the seed and the trial's number, so a resumed search draws the same params
        as an unbroken one.
        """
        return self.gate.write(lambda is_retry: self._asking.ask(params, is_retry))

    def interrupted(self) -> tuple[Proposal, ...]:
        """Takes up the trials that an earlier run left RUNNING, under their own numbers."""
        numbers = sorted(self._asking.live.running)
        take = self._asking.take
        return tuple(self.gate.write(functools.partial(take, number)) for number in numbers)

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Adds epochs to a trial's curve; epochs that the curve has already are passed over."""
        live = self._asking.live
        trial = live.running[number]
        new = {epoch: values[epoch] for epoch in sorted(values) if epoch > trial.num_reported}
        if new:
            self.gate.write(lambda again: self._writer.report(trial.id, new, again=again))
            live.sampling.report(number, new)
            trial.num_reported = max(new)

    def pause(self, number: int, facts: Mapping[str, Any]) -> None:
        """Notes that a trial pauses, with its `facts`; this search or a later one may resume it.

        For Optuna the trial stays RUNNING, but the sampler learns from it as if it ended here.
        """
        live = self._asking.live
        trial = live.running[number]
        kept = {"epoch": trial.num_reported, "facts": dict(facts)}
        self.gate.write(lambda _: self.storage.set_trial_user_attr(trial.id, FACTS_SO_FAR, kept))
        live.sampling.pause(number)

    def finish(
        self,
        number: int,
        state: str,
        attributes: Mapping[str, Any],
        value: float | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        """Ends a trial as COMPLETE (with its value), PRUNED or FAIL.

        Args:
            number: The trial's number.
            state: The state that Optuna is told: COMPLETE, PRUNED or FAIL.
            attributes: Kept as the trial's user attributes; must hold the architecture's costs
                that are objectives.
            value: A COMPLETE trial's value of the metric; None for others.
            constraints: By how much the trial misses each constraint, by name; at most 0: it is
                kept.
        """
        values = None
        if value is not None:
            values = objective_values(value, attributes, self._config)
        ending = Ending(TrialState[state], values, attributes, constraints or {})
        self._asking.end(number, ending)

    def add(self, trial: TrialSummary, params: Params, attributes: Mapping[str, Any]) -> None:
        """Adds a trial of another study, with params of this study's space.

        Args:
            trial: The other study's trial.
            params: The trial's params in this study's space.
            attributes: Added to the trial's own; CARRIED_OVER_FROM names its study and number.
        """
        frozen = frozen_of(trial, params, attributes, self._config, self._space)
        source = attributes[CARRIED_OVER_FROM]

        def add(is_retry: bool) -> None:
            known = self._study.get_trials(deepcopy=False) if is_retry else ()
            sources = [one.user_attrs.get(CARRIED_OVER_FROM) for one in known]
            if not any(_is_same_trial(source, one) for one in sources):
                self._study.add_trial(frozen)

        self.gate.write(add)
        self._asking.forget()

    def trials(self) -> tuple[TrialSummary, ...]:
        """All trials that started, by number."""
        frozen = self.gate.read(lambda: self._study.get_trials(deepcopy=False))
        started = (trial for trial in frozen if trial.state != TrialState.WAITING)
        return tuple(summary_of(trial, self._config) for trial in started)

    def driver_record(self) -> DriverRecord:
        """The record of the study's driver."""
        return driver_record(self._backend, self.id)

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def id(self) -> int:
        """The study's id in the storage and in the dashboard's addresses."""
        return self._study._study_id

    @property
    def storage(self) -> BaseStorage:
        return self._study._storage

    @property
    def optuna_study(self) -> optuna.Study:
        """Optuna's study, for Optuna's own figures and computations."""
        return self._study


def _is_same_trial(source: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    names = ("study", "number")
    return other is not None and all(source.get(name) == other.get(name) for name in names)
