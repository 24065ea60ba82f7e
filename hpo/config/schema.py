"""SearchConfig: the settings of a search file, checked and frozen."""

import math
from typing import Final, Self

from pydantic import Field, model_validator

from hpo.config.objectives import (
    TRIAL_COSTS,
)
from hpo.config.rungs import first_rung
from hpo.config.search_space import Parameter
from hpo.config.sections import BudgetConfig as BudgetConfig
from hpo.config.sections import ExportConfig as ExportConfig
from hpo.config.sections import KeptExemplarsConfig as KeptExemplarsConfig
from hpo.config.sections import ReportConfig as ReportConfig
from hpo.config.sections import ResourcesConfig as ResourcesConfig
from hpo.config.sections import RetrainConfig as RetrainConfig
from hpo.config.sections import Scheduler as Scheduler
from hpo.config.sections import SchedulerConfig as SchedulerConfig
from hpo.config.study_section import Sampler as Sampler
from hpo.config.study_section import Select as Select
from hpo.config.study_section import StudyConfig as StudyConfig
from hpo.config.tracking import TrackingConfig as TrackingConfig
from sgformer.config import TrainConfig
from sgformer.export.names import WITH_FEATURES, on_features
from sgformer.validation import FrozenConfig

PAUSING: Final = ("freeze_thaw", "asha_promotion")
# The choices allowed with several objectives; the others compare trials by a single value.
SCHEDULERS_OF_SEVERAL: Final = ("asha", "hyperband", "none")
SAMPLERS_OF_SEVERAL: Final = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random", "grid")

DEFAULT_MIN_EPOCHS: Final = 4  # the first rung of every scheduler but freeze_thaw
# The default epoch budget of freeze_thaw, as a share of the epochs of num_trials full trainings;
# asha trains about as many epochs.
DEFAULT_SHARE_OF_EPOCHS: Final = 0.25


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
    def num_trainings_a_seed(self) -> int:
        """Trainings after the trials on one fresh seed; 1, the winner's, without a comparison."""
        if not self.compares_finalists:
            return 1
        return self.retrain.top_k + 1 + bool(self.train.distillation.teacher)

    @property
    def num_fresh_trainings(self) -> int:
        """The most trainings after the trials: finalists', the winner's without its teacher."""
        return self.num_trainings_a_seed * (self.retrain.seeds if self.compares_finalists else 1)

    @property
    def fresh_epochs(self) -> int:
        """The length of a training after the trials, in epochs."""
        return self.retrain.max_epochs or self.train.max_epochs

    @property
    def epochs_set_aside(self) -> float:
        """Epochs that `budget.total_epochs` sets aside at first; 0 without that limit."""
        total, share = self.budget.total_epochs, self.retrain.max_share
        whole = self.num_fresh_trainings * self.fresh_epochs
        if total is None:
            return 0.0
        if share is None or not self.compares_finalists:
            return whole
        most, num_seeds = max(self.fresh_epochs, share / (1 + share) * total), self.retrain.seeds
        a_seed = self.num_trainings_a_seed * self.fresh_epochs
        by_seeds = (a_seed * n for n in range(num_seeds, 0, -1))
        return next((epochs for epochs in by_seeds if epochs <= most), most)

    @property
    def _least_epochs_after(self) -> int:
        """What the smallest search needs after its trials, which are the default alone."""
        whole, share = self.num_fresh_trainings * self.fresh_epochs, self.retrain.max_share
        if share is None:
            return whole
        return min(whole, max(self.fresh_epochs, math.ceil(share * self.train.max_epochs)))

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
        after = self._least_epochs_after
        if total is not None and total < max_epochs + after:
            raise ValueError(
                f"budget.total_epochs: must leave room for the default configuration's training "
                f"of {max_epochs} epochs, and for {after} after the search (retrain.top_k, "
                f"retrain.seeds, retrain.max_share): at least {max_epochs + after}, got {total}"
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
