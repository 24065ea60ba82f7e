"""The Optuna study, the search's only memory. Only this module reads and writes it."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState, create_trial

from hpo.config import StudyConfig
from hpo.errors import StudyError
from hpo.search_space import Params, Space, suggest_params
from hpo.storage import open_storage, patiently, without_password

optuna.logging.set_verbosity(optuna.logging.WARNING)
NUM_STARTUP_TRIALS: Final = 5  # Source: shared measurements, TPE + ASHA with 5 beats 10.


@dataclass(frozen=True)
class Proposal:
    """A trial to run: a new one, or one that was interrupted."""

    number: int
    params: Params
    num_epochs_reported: int = 0


@dataclass(frozen=True)
class TrialSummary:
    """One trial as the study has it.

    `curve` is the objective by epoch; only a COMPLETE trial has a `value`, its best epoch's.
    """

    number: int
    state: str
    value: float | None
    params: Params
    curve: Mapping[int, float]
    attributes: Mapping[str, Any]

    @property
    def num_epochs(self) -> int:
        return max(self.curve, default=0)


class SearchStudy:
    """A study that tells Optuna the truth.

    A trial is COMPLETE only if it ran its length or stopped itself, with its best value; PRUNED
    if the scheduler stopped it or it diverged; FAIL if it broke. Every epoch is in its curve.

    Attributes:
        on_outage: Hears when the database goes away while trials run, and when it is back.
    """

    def __init__(self, study: optuna.Study, config: StudyConfig, space: Space) -> None:
        self._study, self._config, self._space = study, config, space
        self._trials: dict[int, Trial] = {}
        self._num_reported: dict[int, int] = {}
        self.on_outage: Callable[[str], None] = lambda _text: None

    @classmethod
    def create(cls, url: str, config: StudyConfig, space: Space) -> Self:
        """A new, empty study.

        Raises:
            StudyError: The storage cannot be used, or has a study of this name.
        """
        try:
            study = optuna.create_study(
                storage=open_storage(url),
                study_name=config.name,
                direction=config.direction,
                pruner=optuna.pruners.NopPruner(),
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise StudyError(
                f"study {config.name!r} exists already in {without_password(url)}"
            ) from None
        with _experimental():
            study.set_metric_names([config.metric])
        return cls(study, config, space)

    @classmethod
    def find(cls, url: str, config: StudyConfig, space: Space) -> Self | None:
        """The existing study, None if there is none of this name.

        Raises:
            StudyError: The storage cannot be used.
        """
        try:
            study = optuna.load_study(storage=open_storage(url), study_name=config.name)
        except KeyError:
            return None
        return cls(study, config, space)

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

    def enqueue_first_trials(self, default: Params) -> None:
        """Has the default configuration tried first, then those of the config's `enqueue`.

        May be called again: what was tried or waits already is not added twice.
        """
        for params in (default, *self._config.enqueue):
            self._study.enqueue_trial(params, skip_if_exists=True)

    def ask(self) -> Proposal:
        """A new trial, running from now on.

        The sampler's random state is derived from the seed and the trial's number, so a resumed
        search draws what an uninterrupted one would have drawn.
        """
        return patiently(self._ask, self.on_outage)

    def _ask(self, is_retry: bool) -> Proposal:
        trials = self._study.get_trials(deepcopy=False)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        unknown = [t for t in running if t.number not in self._trials] if is_retry else []
        number = sum(trial.state != TrialState.WAITING for trial in trials) - len(unknown)
        self._study.sampler = create_sampler(self._config, number)
        # A try whose answer was lost may have made the trial.
        trial = Trial(self._study, unknown[0]._trial_id) if unknown else self._study.ask()
        params = suggest_params(trial, self._space)
        self._trials[trial.number] = trial
        self._num_reported[trial.number] = 0
        return Proposal(trial.number, params)

    def interrupted(self) -> tuple[Proposal, ...]:
        """Trials left RUNNING by an earlier run, taken up again under their own numbers."""
        proposals = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # A Trial made from its id keeps number and params. Those that a crash inside `ask`
            # kept from being sampled are sampled now.
            self._study.sampler = create_sampler(self._config, frozen.number)
            trial = Trial(self._study, frozen._trial_id)
            params = suggest_params(trial, self._space)
            reported = max(frozen.intermediate_values, default=0)
            self._trials[frozen.number] = trial
            self._num_reported[frozen.number] = reported
            proposals.append(Proposal(frozen.number, params, reported))
        return tuple(proposals)

    def report(self, number: int, values: Mapping[int, float]) -> None:
        """Adds epochs to a trial's curve; those it has already are passed over."""
        for epoch in sorted(values):
            if epoch > self._num_reported[number]:
                self._report(number, epoch, values[epoch])
                self._num_reported[number] = epoch

    def _report(self, number: int, epoch: int, value: float) -> None:
        # Written twice, should only the answer have been lost, it is what it was.
        patiently(lambda _: self._trials[number].report(value, epoch), self.on_outage)

    def finish(
        self,
        number: int,
        state: str,
        attributes: Mapping[str, Any],
        value: float | None = None,
    ) -> None:
        """Ends a trial as COMPLETE (with its value), PRUNED or FAIL; attributes are kept."""

        def write(is_retry: bool) -> None:
            trial = self._trials[number]
            if is_retry and self._is_finished(number):
                return
            for name, attribute in attributes.items():
                trial.set_user_attr(name, attribute)
            self._study.tell(trial, value, TrialState[state])

        patiently(write, self.on_outage)
        del self._trials[number]

    def _is_finished(self, number: int) -> bool:
        trials = self._study.get_trials(deepcopy=False)
        return any(t.number == number and t.state.is_finished() for t in trials)

    def add(self, trial: TrialSummary, params: Params, attributes: Mapping[str, Any]) -> None:
        """Adds a trial of another study as it is, with params of this one's space."""
        fixed = FixedTrial(params)
        suggest_params(fixed, self._space)
        value = trial.value
        if trial.state == "PRUNED":  # as Optuna has it
            last = trial.curve.get(trial.num_epochs, math.nan)
            value = None if math.isnan(last) else last
        frozen = create_trial(
            state=TrialState[trial.state],
            value=value,
            params=params,
            distributions=fixed.distributions,
            user_attrs={**trial.attributes, **attributes},
            intermediate_values=dict(trial.curve),
        )
        patiently(lambda _: self._study.add_trial(frozen), self.on_outage)

    def trials(self) -> tuple[TrialSummary, ...]:
        """All trials that started, by number."""
        frozen = self._study.get_trials(deepcopy=False)
        return tuple(_summary(trial) for trial in frozen if trial.state != TrialState.WAITING)

    def best_trial(self) -> TrialSummary | None:
        """The COMPLETE trial with the best value; None if there is none."""
        return pick_best(self.trials(), maximise=self._config.direction == "maximize")

    @property
    def search_config(self) -> dict[str, Any] | None:
        """The config of the search that made the study, as plain values."""
        values: dict[str, Any] | None = self._study.user_attrs.get("search_config")
        return values

    @search_config.setter
    def search_config(self, values: dict[str, Any]) -> None:
        self._study.set_user_attr("search_config", values)

    @property
    def images(self) -> dict[str, Any] | None:
        """Classes and numbers of images that the study was made over."""
        values: dict[str, Any] | None = self._study.user_attrs.get("images")
        return values

    @images.setter
    def images(self, values: dict[str, Any]) -> None:
        self._study.set_user_attr("images", values)

    @property
    def delivered_trial(self) -> int | None:
        """The trial whose configuration the run's best/ was trained with."""
        number: int | None = self._study.user_attrs.get("delivered_trial")
        return number

    @delivered_trial.setter
    def delivered_trial(self, number: int) -> None:
        self._study.set_user_attr("delivered_trial", number)

    @property
    def carried_from(self) -> dict[str, Any] | None:
        """The study that trials were carried over from, and how many of them."""
        values: dict[str, Any] | None = self._study.user_attrs.get("carried_from")
        return values

    @carried_from.setter
    def carried_from(self, values: dict[str, Any]) -> None:
        self._study.set_user_attr("carried_from", values)

    @property
    def carried_to(self) -> str | None:
        """The study that the trials were carried over to."""
        name: str | None = self._study.user_attrs.get("carried_to")
        return name

    @carried_to.setter
    def carried_to(self, name: str) -> None:
        self._study.set_user_attr("carried_to", name)

    @property
    def driver(self) -> dict[str, Any] | None:
        """The process that works on the study, as plain values."""
        values: dict[str, Any] | None = self._study.user_attrs.get("driver")
        return values

    @driver.setter
    def driver(self, values: dict[str, Any] | None) -> None:
        self._study.set_user_attr("driver", values)

    @property
    def id(self) -> int:
        """The study's number in the dashboard's addresses."""
        return self._study._study_id

    @property
    def storage(self) -> BaseStorage:
        return self._study._storage

    @property
    def optuna_study(self) -> optuna.Study:
        """For Optuna's own analyses, such as importances."""
        return self._study


def pick_best(trials: Sequence[TrialSummary], *, maximise: bool) -> TrialSummary | None:
    """The COMPLETE trial with the best value, the earliest among equals."""
    complete = [t for t in trials if t.state == "COMPLETE" and t.value is not None]
    sign = 1 if maximise else -1
    return max(complete, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)


def create_sampler(config: StudyConfig, number: int) -> optuna.samplers.BaseSampler:
    """The configured sampler, in the random state that belongs to a trial's number."""
    seed = (config.seed * 1_000_003 + number) % 2**32
    with _experimental():
        if config.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=NUM_STARTUP_TRIALS)
        if config.sampler == "qmc":
            # A low-discrepancy sequence is one sequence: its seed must not change.
            return optuna.samplers.QMCSampler(seed=config.seed, scramble=True)
        if config.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP_TRIALS)


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Optuna warns of what it calls experimental; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _summary(trial: FrozenTrial) -> TrialSummary:
    # Optuna gives a pruned trial its last epoch's value, which is not what it is worth.
    complete = trial.state == TrialState.COMPLETE
    return TrialSummary(
        number=trial.number,
        state=trial.state.name,
        value=trial.value if complete else None,
        params=dict(trial.params),
        curve=dict(sorted(trial.intermediate_values.items())),
        attributes=dict(trial.user_attrs),
    )
