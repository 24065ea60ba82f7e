"""The Optuna study, the search's only memory. Only this module reads and writes it."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from hpo.config.schema import SearchConfig, StudyConfig
from hpo.config.search_space import Params, Space, suggest_params
from hpo.errors import StudyError
from hpo.samplers.proxy_study import Sampling, create_sampler
from hpo.study.metadata import StudyMetadata
from hpo.study.storage import open_storage, patiently, without_password
from hpo.study.trial import FACTS_SO_FAR, Proposal, TrialStatus, TrialSummary
from hpo.study.writer import Ending, trial_writer

optuna.logging.set_verbosity(optuna.logging.WARNING)

Result = TypeVar("Result")


@dataclass
class _Live:
    """What a search that goes on knows of its study, without reading it again.

    Attributes:
        sampling: Draws new trials.
        num_trials: Of all states.
        waiting: Trials that were enqueued.
        ids: The storage's, of the running trials, by number; likewise the next two.
        params: Of the running trials.
        num_reported: Epochs of the running trials.
    """

    sampling: Sampling
    num_trials: int
    waiting: deque[FrozenTrial] = field(default_factory=deque)
    ids: dict[int, int] = field(default_factory=dict)
    params: dict[int, Params] = field(default_factory=dict)
    num_reported: dict[int, int] = field(default_factory=dict)


class SearchStudy:
    """A study that tells Optuna the truth.

    A trial is COMPLETE only if it ran its length or stopped itself, with its best value; PRUNED
    if the scheduler stopped it or it diverged; FAIL if it broke. Every epoch is in its curve.

    Attributes:
        metadata: The study's own facts.
        on_outage: Hears when the database goes away while trials run, and when it is back.
        is_ours: Whether this process is the driver; asked after an outage.
    """

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, config: StudyConfig, space: Space
    ) -> None:
        self._study, self._config, self._space = study, config, space
        self._writer = trial_writer(storage, study._study_id)
        self.metadata = StudyMetadata(study, self._patiently)
        self._live: _Live | None = None
        self._taken: set[int] = set()
        self.on_outage: Callable[[str], None] = lambda _text: None
        self.is_ours: Callable[[], bool] = lambda: True

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
        """A new study that lasts as long as the process."""
        directions = [direction for _, direction in config.objectives]
        study = optuna.create_study(directions=directions, pruner=optuna.pruners.NopPruner())
        return cls(study, study._storage, config, space)

    @classmethod
    def find(cls, url: str, config: StudyConfig, space: Space) -> Self | None:
        """The existing study, None if there is none of this name.

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
            StudyError: The storage cannot be used, has no such study, or not one of ours.
        """
        try:
            study = optuna.load_study(storage=open_storage(url), study_name=name)
        except KeyError:
            raise StudyError(f"no study {name!r} in {without_password(url)}") from None
        values = study.user_attrs.get("search_config")
        if values is None:
            raise StudyError(
                f"study {name!r} in {without_password(url)} was not made by this program"
            )
        config = SearchConfig.model_validate(values)
        return cls(study, study._storage, config.study, config.space), config

    def enqueue_first_trials(self, default: Params) -> None:
        """Has the default configuration tried first, then `enqueue`'s and `warm_start`'s.

        May be called again: what was tried or waits already is not added twice.
        """
        for params in (default, *self._config.enqueue, *(self.metadata.warm_start or ())):
            self._study.enqueue_trial(params, skip_if_exists=True)
        self._live = None

    @property
    def has_waiting(self) -> bool:
        """Whether enqueued trials are yet to start."""
        return bool(self._known().waiting)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no trial left to ask for, as over a grid that has been tried."""
        live = self._known()
        return not live.waiting and live.sampling.is_exhausted

    def ask(self, params: Params | None = None) -> Proposal:
        """A new trial, running from now on: one that waits, or the params, or what is sampled.

        The sampler's random state is derived from the seed and the trial's number, so a resumed
        search draws what an uninterrupted one would have drawn.
        """
        return self._patiently(lambda is_retry: self._ask(params, is_retry))

    def _ask(self, chosen: Params | None, is_retry: bool) -> Proposal:
        if is_retry:  # the earlier try may have made the trial, and its answer was lost
            self._live = None
            for number in self._known().ids.keys() - self._taken:
                return self._take(number, self._known().params[number])
        live = self._known()
        waiting = live.waiting.popleft() if live.waiting else None
        number = live.num_trials if waiting is None else waiting.number
        fixed = chosen if waiting is None else dict(waiting.system_attrs["fixed_params"])
        params, distributions = live.sampling.draw(number, fixed)
        if waiting is None:
            trial_id = self._writer.create(number, params, distributions)
            live.num_trials += 1
        else:
            trial_id = waiting._trial_id
            self._writer.start(trial_id, params, distributions, again=is_retry)
        live.ids[number], live.params[number], live.num_reported[number] = trial_id, params, 0
        return self._take(number, params)

    def _take(self, number: int, params: Params, num_epochs: int = 0) -> Proposal:
        self._taken.add(number)
        return Proposal(number, params, num_epochs)

    def interrupted(self) -> tuple[Proposal, ...]:
        """Trials left RUNNING by an earlier run, taken up again under their own numbers."""
        live = self._known()
        return tuple(
            self._take(number, live.params[number], live.num_reported[number])
            for number in sorted(live.ids)
        )

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Adds epochs to a trial's curve; those it has already are passed over."""
        live = self._known()
        num_reported = live.num_reported[number]
        new = {epoch: values[epoch] for epoch in sorted(values) if epoch > num_reported}
        if new:
            trial_id = live.ids[number]
            self._patiently(lambda again: self._writer.report(trial_id, new, again=again))
            live.sampling.report(number, new)
            live.num_reported[number] = max(new)

    def pause(self, number: int, facts: Mapping[str, Any]) -> None:
        """A trial pauses, and may be taken up later, by another search too, with these facts.

        To Optuna it is RUNNING, but the sampler learns from it as if it ended here.
        """
        live = self._known()
        trial_id, epoch = live.ids[number], live.num_reported[number]
        kept = {"epoch": epoch, "facts": dict(facts)}
        self._patiently(lambda _: self.storage.set_trial_user_attr(trial_id, FACTS_SO_FAR, kept))
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
            number: The trial's.
            state: What it is told as.
            attributes: Are kept; what its architecture costs is among them, where that counts.
            value: Of the metric.
            constraints: By how much it misses each, by name; at most 0 where it does not.
        """
        live = self._known()
        trial_id, told = live.ids[number], TrialState[state]
        values = None if value is None else self._objectives(value, attributes)
        kept = live.sampling.finish(number, told, values, constraints)
        ending = Ending(told, kept, attributes, constraints or {})
        self._patiently(lambda again: self._writer.finish(trial_id, ending, again=again))
        del live.ids[number], live.params[number], live.num_reported[number]
        self._taken.discard(number)

    def _objectives(self, value: float, attributes: Mapping[str, Any]) -> list[float]:
        """Values of all objectives, given the metric's."""
        metric = self._config.metric
        names = (name for name, _ in self._config.objectives)
        return [value if name == metric else float(attributes[name]) for name in names]

    def _patiently(self, action: Callable[[bool], Result]) -> Result:
        """Waits for a database that is away, and then goes on only if the study is still ours."""

        def attempt(is_retry: bool) -> Result:
            if is_retry and not self.is_ours():
                raise StudyError(
                    f"another search has taken up study {self._config.name!r} meanwhile"
                )
            return action(is_retry)

        return patiently(attempt, self.on_outage)

    def _known(self) -> "_Live":
        if self._live is None:
            self._live = self._read()
        return self._live

    def _read(self) -> "_Live":
        """The study as it is, for going on with it: at the start, and after an outage."""
        frozen = self._study.get_trials(deepcopy=False)
        live = _Live(Sampling(self._config, self._space), len(frozen))
        for trial in frozen:
            if trial.state == TrialState.WAITING:
                live.waiting.append(trial)
                continue
            if trial.state == TrialState.RUNNING:
                trial = self._completed(trial)
                live.ids[trial.number] = trial._trial_id
                live.params[trial.number] = dict(trial.params)
                live.num_reported[trial.number] = max(trial.intermediate_values, default=0)
            live.sampling.add(trial)
            is_running = trial.state == TrialState.RUNNING
            if is_running and self._summary(trial).facts_of_pause is not None:
                live.sampling.pause(trial.number)
        return live

    def _completed(self, frozen: FrozenTrial) -> FrozenTrial:
        """A RUNNING trial with all its params: another's ask may have been cut short."""
        try:
            suggest_params(FixedTrial(frozen.params), self._space)
        except ValueError:
            self._study.sampler = create_sampler(self._config, self._space, frozen.number)
            suggest_params(Trial(self._study, frozen._trial_id), self._space)
            return self._study._storage.get_trial(frozen._trial_id)
        return frozen

    def add(self, trial: TrialSummary, params: Params, attributes: Mapping[str, Any]) -> None:
        """Adds a trial of another study as it is, with params of this one's space."""
        fixed = FixedTrial(params)
        suggest_params(fixed, self._space)
        values = None if trial.value is None else self._objectives(trial.value, trial.attributes)
        if trial.state == "PRUNED" and not self._config.has_several_objectives:
            last = trial.curve.get(trial.num_epochs, math.nan)  # as Optuna has it
            values = None if math.isnan(last) else [last]
        frozen = create_trial(
            state=TrialState[trial.state],
            values=values,
            params=params,
            distributions=fixed.distributions,
            user_attrs={**trial.attributes, **attributes},
            intermediate_values=dict(trial.curve),
            constraints=dict(trial.constraints),
        )
        patiently(lambda _: self._study.add_trial(frozen), self.on_outage)

    def trials(self) -> tuple[TrialSummary, ...]:
        """All trials that started, by number."""
        frozen = self._study.get_trials(deepcopy=False)
        started = (trial for trial in frozen if trial.state != TrialState.WAITING)
        return tuple(self._summary(trial) for trial in started)

    def _summary(self, trial: FrozenTrial) -> TrialSummary:
        # Optuna gives a pruned trial its last epoch's value, which is not what it is worth.
        value = None
        if trial.state == TrialState.COMPLETE:
            names = [name for name, _ in self._config.objectives]
            value = trial.values[names.index(self._config.metric)]
        return TrialSummary(
            number=trial.number,
            state=TrialStatus(trial.state.name),
            value=value,
            params=dict(trial.params),
            curve=dict(sorted(trial.intermediate_values.items())),
            attributes=dict(trial.user_attrs),
            constraints=dict(trial.constraints),
        )

    @property
    def id(self) -> int:
        """The study's number in the dashboard's addresses."""
        return self._study._study_id

    @property
    def storage(self) -> BaseStorage:
        return self._study._storage

    @property
    def optuna_study(self) -> optuna.Study:
        """For what Optuna itself shows of a study, or computes from it."""
        return self._study
