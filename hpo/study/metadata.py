"""What a study knows beside its trials: one typed record of facts, kept in the storage."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import optuna

from hpo.config.search_space import Params

FRESH_TRAINING: Final = "fresh_training:"
Value = TypeVar("Value")


class Fact(Generic[Value]):
    """One fact of a study, kept as the study's user attribute of the same name.

    Reading it gives what the storage has now, or `default`; setting it writes it.
    """

    def __init__(self, default: Value) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: "StudyMetadata", owner: type) -> Value:
        value: Value = record.read(self._name, copy.copy(self._default))
        return value

    def __set__(self, record: "StudyMetadata", value: Value) -> None:
        record.write(self._name, value)


class StudyMetadata:
    """The facts of a study, as plain values.

    Attributes:
        search_config: The config of the search that made the study.
        images: Classes and numbers of the images that the trials are trained on.
        architectures: What each architecture costs, by its name, as far as it was measured.
        model_state: Hyperparameters of the surrogate's last fit, which the next one starts from.
        first_levels: The first rungs that were chosen, the latest last.
        last_one: Number of the trial that the rest of the budget belongs to, once it is chosen.
        seconds_searched: Wall-clock seconds that searches ran over the study, as last noted.
        limits_reached: The limits that the search has come to; to go on, they must be raised.
        warm_start: Params that earlier studies suggest to start from; None: they were not asked.
        finalists: The trials that are compared on fresh seeds.
        retrainings: Trainings of what was delivered, beside those of finalists.
        delivered_trial: Number of the trial whose configuration best/ was trained with.
        carried_from: The study that trials were carried over from, and how many of them.
        carried_to: Name of the study that the trials were carried over to.
        driver: The process that drives the study; None: there is none.
    """

    search_config = Fact[dict[str, Any] | None](None)
    images = Fact[dict[str, Any] | None](None)
    architectures = Fact[Mapping[str, Mapping[str, float]]]({})
    model_state = Fact[list[float] | None](None)
    first_levels = Fact[list[dict[str, Any]]]([])
    last_one = Fact[int | None](None)
    seconds_searched = Fact[float](0.0)
    limits_reached = Fact[dict[str, Any] | None](None)
    warm_start = Fact[Sequence[Params] | None](None)
    finalists = Fact[dict[str, Any] | None](None)
    retrainings = Fact[list[dict[str, Any]]]([])
    delivered_trial = Fact[int | None](None)
    carried_from = Fact[dict[str, Any] | None](None)
    carried_to = Fact[str | None](None)
    driver = Fact[dict[str, Any] | None](None)

    def __init__(
        self, study: optuna.Study, write: Callable[[Callable[[bool], None]], None]
    ) -> None:
        """The record of `study`; `write` does what it is given when the storage answers."""
        self._study, self._write = study, write

    def read(self, name: str, default: Any) -> Any:
        return self._study.user_attrs.get(name, default)

    def write(self, name: str, value: Any) -> None:
        plain = json.loads(json.dumps(value))  # the same comes back from every storage
        self._write(lambda _is_retry: self._study.set_user_attr(name, plain))

    @property
    def fresh_trainings(self) -> dict[str, dict[str, Any]]:
        """The finalists' trainings on fresh seeds that have ended, by name."""
        attributes = self._study.user_attrs.items()
        prefix = FRESH_TRAINING
        return {k.removeprefix(prefix): v for k, v in attributes if k.startswith(prefix)}

    def add_fresh_training(self, name: str, values: Mapping[str, Any]) -> None:
        self.write(f"{FRESH_TRAINING}{name}", dict(values))

    def add_retraining(self, trial: int, num_epochs: int, seconds: float, num_gpus: float) -> None:
        """Notes a retraining of what is delivered.

        Args:
            trial: Number of the trial whose configuration was trained.
            num_epochs: Epochs that were begun, those repeated after a crash included.
            seconds: Wall-clock seconds of these epochs.
            num_gpus: GPUs that were in use all that time.
        """
        taken = {"num_epochs": num_epochs, "seconds": seconds, "gpu_seconds": seconds * num_gpus}
        self.retrainings = [*self.retrainings, {"trial": trial, **taken}]

    @property
    def trainings_after(self) -> tuple[dict[str, Any], ...]:
        """All trainings that the budget pays for beside trials."""
        return (*self.fresh_trainings.values(), *self.retrainings)
