"""SearchConfig: what a search file says, as checked and frozen values."""

import re
from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpo.config.objectives import METRICS, Constraint, Direction, Objective, ObjectiveName
from hpo.config.search_space import Parameter, Value
from sgformer.config import FrozenConfig, Metric, TrainConfig

Select = Literal["best", "knee", "front"]
Sampler = Literal["curves", "tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random", "grid"]
Scheduler = Literal["freeze_thaw", "asha", "asha_promotion", "hyperband", "median", "none"]

PAUSING: Final = ("freeze_thaw", "asha_promotion")
# With several objectives; the others compare trials by one value.
SCHEDULERS_OF_SEVERAL: Final = ("asha", "hyperband", "none")
SAMPLERS_OF_SEVERAL: Final = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random", "grid")

DEFAULT_MIN_EPOCHS: Final = 4  # but of freeze_thaw
FIRST_LEVEL: Final = 8 / 52  # of freeze_thaw, of max_epochs. Source: shared measurements.
DEFAULT_SHARE_OF_EPOCHS: Final = 0.25  # of freeze_thaw: what asha takes, about


def _has_password(url: str) -> bool:
    return re.search(r"://[^/@]*:[^/@]*@|[?&]password=", url) is not None


class StudyConfig(FrozenConfig):
    """The study: its name, what it optimises, how it samples, how many trials.

    One of the `objectives` is a metric, with a learning curve; others are what an architecture
    costs. `constraints` are bounds that the result keeps to. `select`, of the trials that do: best
    by the metric; the knee of the Pareto front; or each trial of the front. None: best, with
    several objectives knee.

    `storage` is an Optuna URL without its password; None means study.db in the run folder.
    `enqueue` are params to try right after the default configuration, which is always first.
    `warm_start` are earlier runs' folders, or URL#STUDY, whose best configurations come next.
    `sampler` curves reads the trials' whole curves, the others their values; None: curves with
    scheduler freeze_thaw, else tpe.
    """

    name: str = Field(default="", max_length=100)
    seed: int = Field(default=0, ge=0)
    objectives: tuple[tuple[ObjectiveName, Direction], ...] = (("val_top1", "maximize"),)
    constraints: tuple[Constraint, ...] = ()
    select: Select | None = Field(default=None, validate_default=True)
    sampler: Sampler | None = None
    num_trials: int = Field(ge=1)
    enqueue: tuple[dict[str, Value], ...] = ()
    warm_start: tuple[str, ...] = ()
    max_retries: int = Field(default=3, ge=0)
    storage: str | None = None

    @field_validator("name")
    @classmethod
    def _fit_for_a_folder(cls, name: str) -> str:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        if name.startswith((".", "-")) or not set(name) <= allowed:
            raise ValueError(
                f"names a folder: letters, digits, '.', '_' and '-' only, not starting with '.' "
                f"or '-', got {name!r}"
            )
        return name

    @field_validator("storage")
    @classmethod
    def _without_password(cls, storage: str | None) -> str | None:
        if storage is not None and _has_password(storage):
            raise ValueError("holds a password; pass the whole URL in HPO_STORAGE instead")
        return storage

    @field_validator("warm_start")
    @classmethod
    def _without_passwords(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if any(map(_has_password, sources)):
            raise ValueError(
                "holds a password; leave it out: that of HPO_STORAGE is used for the same database"
            )
        return sources

    @field_validator("objectives")
    @classmethod
    def _sensible(cls, objectives: tuple[tuple[ObjectiveName, Direction], ...]) -> Any:
        names = [name for name, _ in objectives]
        metrics = [name for name in names if name in METRICS]
        if len(metrics) != 1 or len(set(names)) < len(names):
            raise ValueError(
                f"takes one of {', '.join(METRICS)}, and beside it num_parameters or latency_ms, "
                f"each once, got {', '.join(names) or 'none'}"
            )
        for name, direction in objectives:
            expected = Objective.named(name).direction
            if direction != expected:
                raise ValueError(f"{name} is to {expected}, got {direction!r}")
        return objectives

    @field_validator("select")
    @classmethod
    def _select_fits(cls, select: Select | None, info: ValidationInfo) -> Any:
        has_several = len(info.data.get("objectives", ())) > 1  # none: they are wrong
        if select in ("knee", "front") and not has_several:
            raise ValueError(
                f"{select} is of several study.objectives; with one there is only best"
            )
        return select or ("knee" if has_several else "best")

    @property
    def metric(self) -> Metric:
        """The objective that has a learning curve."""
        return next(cast("Metric", name) for name, _ in self.objectives if name in METRICS)

    @property
    def objective(self) -> Objective:
        """The metric and its direction."""
        return Objective.named(self.metric)

    @property
    def has_several_objectives(self) -> bool:
        return len(self.objectives) > 1

    @property
    def costs(self) -> tuple[str, ...]:
        """What the search has to know of an architecture before it is trained."""
        names = (*(n for n, _ in self.objectives), *(c.name for c in self.constraints))
        return tuple(dict.fromkeys(name for name in names if name not in METRICS))


class SchedulerConfig(FrozenConfig):
    """freeze_thaw pauses trials and resumes the most promising by a model of their curves.

    They compete first after min_epochs (None: about a seventh of max_epochs, until the curves tell
    better), then at some later epochs. With cost_aware it weighs what a trial may gain by the
    GPU-seconds that its epochs take.
    asha stops a trial at a rung unless it is among the best 1 / reduction_factor there; rungs lie
    at min_epochs (None: 4) and its multiples by powers of reduction_factor. asha_promotion pauses
    every trial there, and resumes the best when a slot is free. hyperband: brackets of asha, which
    leave out more and more of the first rungs. median: from min_epochs (None: 4) on, a trial stops
    when its best is worse than the median of the others' averages. none: no stopping.
    Without a name it is freeze_thaw, or asha where study.sampler is not curves.
    """

    name: Scheduler | None = None
    min_epochs: int | None = Field(default=None, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    cost_aware: bool = False


class ResourcesConfig(FrozenConfig):
    """What one trial takes; None: one GPU where there are any, and that GPU's share of CPUs.

    With `workers_per_trial` above 1 so many processes train a trial, and the winner, together;
    then each of them takes `cpus_per_trial` and `gpus_per_trial`.
    """

    cpus_per_trial: int | None = Field(default=None, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0)] | None = None
    workers_per_trial: int = Field(default=1, ge=1)
    max_concurrent_trials: int | None = Field(default=None, ge=1)

    @field_validator("gpus_per_trial")
    @classmethod
    def _share_or_whole(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1:
            raise ValueError(
                f"a process trains on one GPU or a share of one, got {gpus:g}; for more, set "
                "resources.workers_per_trial"
            )
        return gpus

    @model_validator(mode="after")
    def _whole_gpus_for_groups(self) -> Self:
        if self.workers_per_trial > 1 and self.gpus_per_trial not in (None, 0, 1):
            raise ValueError(
                f"processes that train together take a whole GPU each, got gpus_per_trial="
                f"{self.gpus_per_trial:g}"
            )
        return self


class StopWhen(FrozenConfig):
    """The search ends when less than `gain_per_gpu_hour`, of the objective, is to be expected."""

    gain_per_gpu_hour: float = Field(gt=0)


class BudgetConfig(FrozenConfig):
    """What a search may take; None: no limit.

    `total_epochs` counts those of all trials and of the trainings on fresh seeds after them; so
    do `gpu_hours`, which a trial without a GPU takes as one with one would, and
    `wall_clock_hours`, while the search runs. With scheduler freeze_thaw and none of them set,
    `total_epochs` is, for the trials, a quarter of what num_trials full trainings take, and at
    least what brings each to its first level and two to their end. `disk_bytes` is of the trials'
    checkpoints. `stop_when` asks freeze_thaw's model of curves whether more trials are worth it.
    """

    total_epochs: int | None = Field(default=None, ge=1)
    gpu_hours: float | None = Field(default=None, gt=0)
    wall_clock_hours: float | None = Field(default=None, gt=0)
    disk_bytes: int | None = Field(default=None, ge=1)
    stop_when: StopWhen | None = None


class RetrainConfig(FrozenConfig):
    """Trainings on fresh seeds, of the winner and before that of those it is picked from.

    The best `top_k` trials and the default configuration are trained again, each on the same
    `seeds` fresh seeds (0: none, and the best trial is the winner), as long as `max_epochs`
    (None: as a trial). The best `top_k` trials also keep their checkpoints. With several
    objectives nothing is compared: `study.select` says which trials are delivered.
    """

    max_epochs: int | None = Field(default=None, ge=1)
    top_k: int = Field(default=3, ge=1)
    seeds: int = Field(default=3, ge=0)


class SearchConfig(FrozenConfig):
    """A whole search. `train` is the configuration that every trial starts from."""

    study: StudyConfig
    budget: BudgetConfig = BudgetConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    space: dict[str, Parameter] = Field(min_length=1)
    train: TrainConfig = TrainConfig()
    retrain: RetrainConfig = RetrainConfig()

    @property
    def compares_finalists(self) -> bool:
        """Whether the winner is picked on fresh seeds; fronts are not."""
        return self.retrain.seeds > 0 and not self.study.has_several_objectives

    @property
    def ranks_by_curves(self) -> bool:
        """Whether a model of all curves says which trials promise most, since some are stopped."""
        return self.scheduler.name != "none" and not self.study.has_several_objectives

    @property
    def num_fresh_trainings(self) -> int:
        """That come after the search: of finalists, at most, or of the winner."""
        if self.retrain.seeds == 0 or self.study.has_several_objectives:
            return 1
        return (self.retrain.top_k + 1) * self.retrain.seeds

    @property
    def fresh_epochs(self) -> int:
        """Of one of them."""
        return self.retrain.max_epochs or self.train.max_epochs

    @property
    def limits(self) -> dict[str, float | None]:
        """Trials, epochs, hours and gain at which the search has come to its end.

        Epochs include those of the trainings after the search where the budget sets them, and
        are the trials' alone where they follow from the number of trials.
        """
        num_trials, budget = self.study.num_trials, self.budget
        total_epochs, stop_when = budget.total_epochs, budget.stop_when
        is_limited = any((total_epochs, budget.gpu_hours, budget.wall_clock_hours))
        if self.scheduler.name == "freeze_thaw" and not is_limited:
            max_epochs = self.train.max_epochs
            first_level = self.scheduler.min_epochs or max(1, round(FIRST_LEVEL * max_epochs))
            share = round(DEFAULT_SHARE_OF_EPOCHS * num_trials * max_epochs)
            total_epochs = max(2 * max_epochs + num_trials * first_level, share)
        return {
            "num_trials": num_trials,
            "total_epochs": total_epochs,
            "gpu_hours": budget.gpu_hours,
            "wall_clock_hours": budget.wall_clock_hours,
            "gain_per_gpu_hour": stop_when.gain_per_gpu_hour if stop_when else None,
        }

    @model_validator(mode="after")
    def _scheduler_and_sampler_go_together(self) -> Self:
        name, sampler = self.scheduler.name, self.study.sampler
        several = self.study.has_several_objectives
        name = name or ("asha" if several or sampler not in (None, "curves") else "freeze_thaw")
        sampler = sampler or ("curves" if name == "freeze_thaw" else "tpe")
        if several:
            self._check_several_objectives(name, sampler)
        if name == "freeze_thaw" and sampler != "curves":
            raise ValueError(
                f"scheduler.name: freeze_thaw weighs new trials against paused ones by its own "
                f"model, study.sampler curves, and cannot with {sampler!r}; leave study.sampler "
                "out, or choose scheduler.name asha"
            )
        if self.budget.stop_when is not None and name != "freeze_thaw":
            raise ValueError(
                "budget.stop_when: asks the model of curves of scheduler.name freeze_thaw, and "
                f"cannot with {name!r}; leave it out"
            )
        if self.scheduler.cost_aware and name != "freeze_thaw":
            raise ValueError(
                "scheduler.cost_aware: weighs what the model of curves of scheduler.name "
                f"freeze_thaw expects, and cannot with {name!r}; leave it out"
            )
        scheduler = self.scheduler.model_copy(update={"name": name})
        study = self.study.model_copy(update={"sampler": sampler})
        object.__setattr__(self, "scheduler", scheduler)
        object.__setattr__(self, "study", study)
        total, max_epochs = self.budget.total_epochs, self.train.max_epochs
        after = self.num_fresh_trainings * self.fresh_epochs
        if total is not None and total < max_epochs + after:
            raise ValueError(
                f"budget.total_epochs: must leave room for the default configuration's training "
                f"of {max_epochs} and {self.num_fresh_trainings} of {self.fresh_epochs} after the "
                f"search (retrain.top_k, retrain.seeds): at least {max_epochs + after}, got "
                f"{total}"
            )
        return self

    def _check_several_objectives(self, scheduler: Scheduler, sampler: Sampler) -> None:
        """Raises ValueError where one of them judges trials by one objective."""
        for path, name, allowed in (
            ("scheduler.name", scheduler, SCHEDULERS_OF_SEVERAL),
            ("study.sampler", sampler, SAMPLERS_OF_SEVERAL),
        ):
            if name not in allowed:
                raise ValueError(
                    f"{path}: {name} judges trials by one objective, and study.objectives has "
                    f"{len(self.study.objectives)}; choose one of {', '.join(allowed)}, or leave "
                    f"{path} out"
                )

    @model_validator(mode="after")
    def _early_stopping_follows_the_objective(self) -> Self:
        if self.train.early_stopping.metric is None:
            early_stopping = self.train.early_stopping.model_copy(
                update={"metric": self.study.metric}
            )
            train = self.train.model_copy(update={"early_stopping": early_stopping})
            object.__setattr__(self, "train", train)
        return self
