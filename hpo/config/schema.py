"""SearchConfig: the settings of a search file, checked and frozen."""

from typing import Any, Final, Literal, Self, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpo.config.objectives import (
    ARCHITECTURE_COSTS,
    COSTS,
    METRICS,
    TRIAL_COSTS,
    Constraint,
    Direction,
    Objective,
    ObjectiveName,
)
from hpo.config.results_url import has_secret, is_url
from hpo.config.rungs import first_rung
from hpo.config.search_space import Parameter, Value
from hpo.config.sections import BudgetConfig as BudgetConfig
from hpo.config.sections import ExportConfig as ExportConfig
from hpo.config.sections import KeptExemplarsConfig as KeptExemplarsConfig
from hpo.config.sections import ReportConfig as ReportConfig
from hpo.config.sections import ResourcesConfig as ResourcesConfig
from hpo.config.sections import RetrainConfig as RetrainConfig
from hpo.config.sections import Scheduler as Scheduler
from hpo.config.sections import SchedulerConfig as SchedulerConfig
from hpo.config.storage_url import HOW_TO_ENCODE, has_password
from hpo.config.tracking import TrackingConfig as TrackingConfig
from sgformer.config import Metric, TrainConfig
from sgformer.export.names import WITH_FEATURES, on_features
from sgformer.validation import FrozenConfig

Select = Literal["best", "knee", "front"]
Sampler = Literal["curves", "tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random", "grid"]

PAUSING: Final = ("freeze_thaw", "asha_promotion")
# The choices allowed with several objectives; the others compare trials by a single value.
SCHEDULERS_OF_SEVERAL: Final = ("asha", "hyperband", "none")
SAMPLERS_OF_SEVERAL: Final = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random", "grid")

DEFAULT_MIN_EPOCHS: Final = 4  # the first rung of every scheduler but freeze_thaw
# The default epoch budget of freeze_thaw, as a share of the epochs of num_trials full trainings;
# asha trains about as many epochs.
DEFAULT_SHARE_OF_EPOCHS: Final = 0.25


class StudyConfig(FrozenConfig):
    """The study: its name, objectives, constraints, sampler and number of trials.

    Attributes:
        name: The name of the study and of the run's folder; empty: the search file's name.
        seed: All random choices of the search are derived from it.
        objectives: Pairs of name and direction. Exactly one is a metric, which has a learning
            curve; the others are costs of an architecture, or of a trained model.
        constraints: Bounds that the delivered trial satisfies, such as 'latency_ms <= 5'.
        select: Which feasible trial is delivered: the best by the metric, the knee of the
            Pareto front, or every trial of the front. None: best; with several objectives knee.
        sampler: Which sampler proposes configurations. `curves` learns from whole learning curves,
            the others from the trials' final values. None: curves with scheduler freeze_thaw,
            else tpe.
        num_trials: How many trials start; ten infeasible trials count as one.
        enqueue: The user's guesses: params that are tried right after trial 0, the default.
        warm_start: Earlier runs, as folders or URL#STUDY; their best configurations are tried
            after the guesses.
        max_retries: How often a trial is tried again after its process died.
        storage: URL of the Optuna storage, without its password; None: a file in the folder of
            the run.
        deliver_to: URL to which the results are copied, in a folder of the study's name, such as
            s3://BUCKET/runs; None: they stay in the run's folder.
        checkpoint_to: URL of the place where trainings keep their checkpoints, in a folder of the
            study's name, so that nodes need no shared folder; None: the run's folder.
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
    deliver_to: str | None = None
    checkpoint_to: str | None = None

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
        if storage is not None and has_password(storage):
            raise ValueError(
                f"holds a password; pass the whole URL in HPO_STORAGE instead ({HOW_TO_ENCODE})"
            )
        return storage

    @field_validator("deliver_to", "checkpoint_to")
    @classmethod
    def _without_a_secret(cls, url: str | None) -> str | None:
        if url is not None and not is_url(url):
            raise ValueError(f"is no URL, such as s3://BUCKET/runs, got {url!r}")
        if url is not None and has_secret(url):
            raise ValueError(
                "holds a password or a key; leave it out: keys are read from the environment, "
                "such as AWS_ACCESS_KEY_ID, and the usual files"
            )
        return url

    @field_validator("warm_start")
    @classmethod
    def _without_passwords(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if any(has_password(source.rpartition("#")[0] or source) for source in sources):
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
                f"takes one of {', '.join(METRICS)}, and beside it any of {', '.join(COSTS)}, "
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
        """The name of the only objective that has a learning curve."""
        return next(cast("Metric", name) for name, _ in self.objectives if name in METRICS)

    @property
    def objective(self) -> Objective:
        """The metric with its direction."""
        return Objective.named(self.metric)

    @property
    def has_several_objectives(self) -> bool:
        return len(self.objectives) > 1

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs in objectives and constraints."""
        names = (*(n for n, _ in self.objectives), *(c.name for c in self.constraints))
        return tuple(dict.fromkeys(name for name in names if name not in METRICS))

    @property
    def architecture_costs(self) -> tuple[str, ...]:
        """Names of the costs that are measured before a trial is trained."""
        return tuple(name for name in self.costs if name in ARCHITECTURE_COSTS)

    @property
    def trial_costs(self) -> tuple[str, ...]:
        """Names of the costs that are measured when a training has come to its end."""
        return tuple(name for name in self.costs if name in TRIAL_COSTS)


class SearchConfig(FrozenConfig):
    """A whole search file.

    Attributes:
        space: The searched parameters by their dotted paths in `train`.
        train: The default configuration; a trial replaces the searched parameters' values in it.
    """

    study: StudyConfig
    budget: BudgetConfig = BudgetConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    space: dict[str, Parameter] = Field(min_length=1)
    train: TrainConfig = TrainConfig()
    retrain: RetrainConfig = RetrainConfig()
    export: ExportConfig = ExportConfig()
    extension: KeptExemplarsConfig = KeptExemplarsConfig()
    report: ReportConfig = ReportConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def compares_finalists(self) -> bool:
        """Whether finalists are compared on fresh seeds; never with several objectives."""
        return self.retrain.seeds > 0 and not self.study.has_several_objectives

    @property
    def ranks_by_curves(self) -> bool:
        """Whether a surrogate of all learning curves ranks trials, some of which end early."""
        return self.scheduler.name != "none" and not self.study.has_several_objectives

    @property
    def num_fresh_trainings(self) -> int:
        """The most trainings after the trials: finalists', the winner's without its teacher."""
        if self.retrain.seeds == 0 or self.study.has_several_objectives:
            return 1
        num_a_seed = self.retrain.top_k + 1 + bool(self.train.distillation.teacher)
        return num_a_seed * self.retrain.seeds

    @property
    def fresh_epochs(self) -> int:
        """The length of a training after the trials, in epochs."""
        return self.retrain.max_epochs or self.train.max_epochs

    @property
    def limits(self) -> dict[str, float | None]:
        """The limits at which the search ends, by name; None: no such limit.

        A `total_epochs` that the budget sets includes the trainings after the search. One that
        follows from the number of trials counts the trials' epochs only. It is computed with the
        default first rung: if earlier studies raise that rung, fewer new trials reach it.
        """
        num_trials, budget = self.study.num_trials, self.budget
        total_epochs, stop_when = budget.total_epochs, budget.stop_when
        is_limited = any((total_epochs, budget.gpu_hours, budget.wall_clock_hours))
        if self.scheduler.name == "freeze_thaw" and not is_limited:
            max_epochs = self.train.max_epochs
            first = self.scheduler.min_epochs or first_rung(max_epochs)
            share = round(DEFAULT_SHARE_OF_EPOCHS * num_trials * max_epochs)
            total_epochs = max(2 * max_epochs + num_trials * first, share)
        return {
            "num_trials": num_trials,
            "total_epochs": total_epochs,
            "gpu_hours": budget.gpu_hours,
            "wall_clock_hours": budget.wall_clock_hours,
            "gain_per_gpu_hour": stop_when.gain_per_gpu_hour if stop_when else None,
        }

    def with_num_features(self, num: int | None) -> Self:
        """A copy whose models take so many numbers beside an image; None: images alone."""
        return self.model_copy(update={"train": self.train.with_num_features(num)})

    @model_validator(mode="after")
    def _scheduler_and_sampler_go_together(self) -> Self:
        """Fills in the default scheduler and sampler, and checks that the two fit together."""
        name, sampler = self.scheduler.name, self.study.sampler
        several = self.study.has_several_objectives
        name = name or self._default_scheduler(sampler)
        sampler = sampler or ("curves" if name == "freeze_thaw" else "tpe")
        if several:
            self._check_several_objectives(name, sampler)
        if name == "freeze_thaw" and sampler != "curves":
            raise ValueError(
                f"scheduler.name: freeze_thaw weighs new trials against paused ones by its own "
                f"model, study.sampler curves, and cannot with {sampler!r}; leave study.sampler "
                "out, or choose scheduler.name asha"
            )
        self._check_what_takes_freeze_thaw(name)
        scheduler = self.scheduler.model_copy(update={"name": name})
        study = self.study.model_copy(update={"sampler": sampler})
        object.__setattr__(self, "scheduler", scheduler)
        object.__setattr__(self, "study", study)
        return self

    def _check_what_takes_freeze_thaw(self, scheduler: Scheduler) -> None:
        """Raises ValueError if another scheduler gets a setting of freeze_thaw's surrogate."""
        if self.budget.stop_when is not None and scheduler != "freeze_thaw":
            raise ValueError(
                "budget.stop_when: asks the model of curves of scheduler.name freeze_thaw, and "
                f"cannot with {scheduler!r}; leave it out"
            )
        if self.scheduler.cost_aware and scheduler != "freeze_thaw":
            raise ValueError(
                "scheduler.cost_aware: weighs what the model of curves of scheduler.name "
                f"freeze_thaw expects, and cannot with {scheduler!r}; leave it out"
            )

    @model_validator(mode="after")
    def _epochs_are_enough(self) -> Self:
        """Raises ValueError if the budget is too small for the default and the final trainings."""
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

    @model_validator(mode="after")
    def _combinations_can_be_made(self) -> Self:
        """Raises ValueError for a soup or an ensemble without finalists, or with bounded costs."""
        deliver, names = self.retrain.deliver, ", ".join(self.study.costs)
        if deliver == "winner":
            return self
        if self.train.data.features is not None:
            raise ValueError(
                "retrain.deliver: a soup or an ensemble is made of models that take images alone, "
                f"and train.data.features is set; choose winner, got {deliver!r}"
            )
        if not self.compares_finalists:
            num = len(self.study.objectives)
            raise ValueError(
                f"retrain.deliver: {deliver} is made of the finalists' trainings on fresh seeds, "
                "which take one of study.objectives and retrain.seeds of at least 1; choose "
                f"winner, got {num} objectives and {self.retrain.seeds} seeds"
            )
        if deliver == "ensemble" and names:
            raise ValueError(
                "retrain.deliver: an ensemble costs as much as its members together, and "
                f"study.constraints has {names}; choose soup or winner, got {deliver!r}"
            )
        if deliver == "soup" and self.study.trial_costs:
            costs = ", ".join(self.study.trial_costs)
            raise ValueError(
                f"retrain.deliver: study.constraints has {costs}, which only a training shows, "
                f"and a soup is none; choose winner, got {deliver!r}"
            )
        return self

    def _default_scheduler(self, sampler: Sampler | None) -> Scheduler:
        if any(name in TRIAL_COSTS for name, _ in self.study.objectives):
            return "none"
        several = self.study.has_several_objectives
        return "asha" if several or sampler not in (None, "curves") else "freeze_thaw"

    def _check_several_objectives(self, scheduler: Scheduler, sampler: Sampler) -> None:
        """Raises ValueError for a scheduler or sampler that supports only one objective."""
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
        late = [name for name, _ in self.study.objectives if name in TRIAL_COSTS]
        if late and scheduler != "none":
            raise ValueError(
                f"scheduler.name: {scheduler} compares trials at rungs, and {late[0]} of "
                "study.objectives is known when a trial has ended; choose none, or bound it in "
                "study.constraints"
            )

    @model_validator(mode="after")
    def _costs_can_be_measured(self) -> Self:
        """Raises ValueError for costs of a file that is not made, or a node without a task."""
        if self.study.trial_costs and not self.export.int8:
            raise ValueError(
                f"study: {self.study.trial_costs[0]} is of the model in 8-bit integers, and "
                "export.int8 is off; set it to true or smallest"
            )
        if self.resources.latency_node and "latency_ms" not in self.study.costs:
            raise ValueError(
                "resources.latency_node: measures latency_ms, which neither study.objectives nor "
                f"study.constraints names; leave it out, got {self.resources.latency_node!r}"
            )
        return self

    @model_validator(mode="after")
    def _features_suit_the_formats(self) -> Self:
        """Raises ValueError for a format in which a model that takes features is not written."""
        others = [name for name in self.export.formats if name not in WITH_FEATURES]
        if self.train.data.features is not None and others:
            raise ValueError(f"export.{others[0]}: {on_features(others[0])}")
        return self

    @model_validator(mode="after")
    def _early_stopping_follows_the_objective(self) -> Self:
        if self.train.early_stopping.metric is None:
            early_stopping = self.train.early_stopping.model_copy(
                update={"metric": self.study.metric}
            )
            train = self.train.model_copy(update={"early_stopping": early_stopping})
            object.__setattr__(self, "train", train)
        return self
