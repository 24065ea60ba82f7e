"""A study's metadata: its facts beside the trials, as one typed record in the storage."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import optuna

from hpo.config.search_space import Params
from hpo.study.gate import Hold, StudyGate

FRESH_TRAINING: Final = "fresh_training:"
Value = TypeVar("Value")


class Fact(Generic[Value]):
    """One fact of a study, kept as the study's user attribute of the same name.

    Reading the attribute returns the stored value, or `default`; setting it writes the value.
    """

    def __init__(self, default: Value) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: "StudyMetadata", owner: type) -> Value:
        value: Value = record.read(self._name, self._default)
        return value

    def __set__(self, record: "StudyMetadata", value: Value) -> None:
        record.write(self._name, value)


class StudyMetadata:
    """The facts of a study, as plain values.

    Attributes:
        search_config: The config of the search that made the study.
        images: Classes and numbers of the images that the trials are trained on.
        architectures: Costs by architecture name, for the architectures that were measured.
        gpu_shares: The share of a GPU of each architecture, as measured, and the kinds of GPU.
        model_state: Hyperparameters of the surrogate's last fit; the next fit starts from these.
        first_levels: The first rungs that were chosen, the latest last.
        last_one: Number of the trial that the search trains to its end at last; None: not chosen.
        last_one_limits: The limits under which `last_one` was chosen; None in studies of older
            versions.
        line: Numbers of paused trials, the one that would be resumed first at the front, as of the
            latest pause.
        seconds_searched: Wall-clock seconds of all searches over the study, as last noted.
        limits_reached: The limits at which the search ended; these must be raised to go on.
        warm_start: Params to start from, by earlier studies; None: these were not read.
        finalists: The trials that are compared on fresh seeds.
        alone_left_out: The limits that had no room to train the winner without its teacher; None:
            it was trained, or has no teacher.
        retrainings: Trainings of the delivered configurations, finalists' trainings left out.
        delivered_trial: Number of the trial whose configuration best/ was trained with.
        carried_from: The study that trials were carried over from, and how many they are.
        carried_to: Name of the study that trials were carried over to.
    """

    search_config = Fact[dict[str, Any] | None](None)
    images = Fact[dict[str, Any] | None](None)
    architectures = Fact[Mapping[str, Mapping[str, float]]]({})
    gpu_shares = Fact[dict[str, Any] | None](None)
    model_state = Fact[list[float] | None](None)
    first_levels = Fact[list[dict[str, Any]]]([])
    last_one = Fact[int | None](None)
    last_one_limits = Fact[dict[str, Any] | None](None)
    line = Fact[list[int]]([])
    seconds_searched = Fact[float](0.0)
    limits_reached = Fact[dict[str, Any] | None](None)
    warm_start = Fact[Sequence[Params] | None](None)
    finalists = Fact[dict[str, Any] | None](None)
    alone_left_out = Fact[dict[str, float | None] | None](None)
    retrainings = Fact[list[dict[str, Any]]]([])
    delivered_trial = Fact[int | None](None)
    carried_from = Fact[dict[str, Any] | None](None)
    carried_to = Fact[str | None](None)

    def __init__(self, study: optuna.Study, gate: StudyGate) -> None:
        self._study, self._gate = study, gate
        self._kept: dict[str, Any] = {}
        self._kept_under: Hold | None = None

    def as_of(self, attributes: Mapping[str, Any]) -> "StudyMetadata":
        """The facts as these user attributes of the study have them, to be read only."""
        return _Snapshot(self._study, self._gate, attributes)

    def read(self, name: str, default: Any) -> Any:
        """The stored value of a fact, or `default`."""
        return copy.deepcopy(self._attributes().get(name, default))

    def write(self, name: str, value: Any) -> None:
        """Writes a fact, once the storage answers."""
        plain = json.loads(json.dumps(value))  # every storage gives this back unchanged
        self._gate.write(lambda _is_retry: self._study.set_user_attr(name, plain))
        self._kept[name] = plain

    def _attributes(self) -> dict[str, Any]:
        """All facts. The driver, as their only writer, reads them once; others each time."""
        hold = self._gate.hold
        if hold is None or hold is not self._kept_under:
            self._kept = self._gate.read(self._latest)
            self._kept_under = hold
        return self._kept

    def _latest(self) -> dict[str, Any]:
        return self._study.user_attrs

    @property
    def driver(self) -> dict[str, Any] | None:
        """The record of the process that drives the study, see Driver; None: none does."""
        values: dict[str, Any] | None = self._latest().get("driver")
        return values

    @property
    def fresh_trainings(self) -> dict[str, dict[str, Any]]:
        """Ended trainings of finalists on fresh seeds, by name; see `add_fresh_training`."""
        attributes = copy.deepcopy(self._attributes())
        prefix = FRESH_TRAINING
        return {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}

    def add_fresh_training(self, name: str, values: Mapping[str, Any]) -> None:
        self.write(f"{FRESH_TRAINING}{name}", dict(values))

    def add_retraining(self, trial: int, num_epochs: int, seconds: float, num_gpus: float) -> None:
        """Notes a training, or without epochs the evaluation, of a delivered configuration.

        Args:
            trial: Number of the trial whose configuration was trained.
            num_epochs: Epochs begun, those repeated after a crash included.
            seconds: Wall-clock seconds of these epochs, or of the evaluation.
            num_gpus: GPUs that were in use all that time.
        """
        taken = {"num_epochs": num_epochs, "seconds": seconds, "gpu_seconds": seconds * num_gpus}
        self.retrainings = [*self.retrainings, {"trial": trial, **taken}]

    @property
    def trainings_after(self) -> tuple[dict[str, Any], ...]:
        """All trainings after the search, which the budget pays for beside trials."""
        return (*self.fresh_trainings.values(), *self.retrainings)


class _Snapshot(StudyMetadata):
    """A study's metadata as some attributes of it have them."""

    def __init__(
        self, study: optuna.Study, gate: StudyGate, attributes: Mapping[str, Any]
    ) -> None:
        super().__init__(study, gate)
        self._attributes_then = dict(attributes)

    def _latest(self) -> dict[str, Any]:
        return self._attributes_then
