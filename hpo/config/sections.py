"""Sections of a search file that stand alone: scheduler, resources, budget and retrain."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sgformer.config import FrozenConfig

Scheduler = Literal["freeze_thaw", "asha", "asha_promotion", "hyperband", "median", "none"]


class SchedulerConfig(FrozenConfig):
    """How trials compete for epochs.

    Attributes:
        name: freeze_thaw pauses trials at rungs, and a surrogate of their curves says which one
            is resumed. asha stops a trial at a rung unless it is among the best
            1 / reduction_factor there. asha_promotion pauses every trial at a rung, and resumes
            the best one when a slot is free. hyperband runs brackets of asha, each of which
            leaves out one more of the first rungs. median stops a trial whose best value is worse
            than the median of the other trials' averages. none stops no trial.
            None: freeze_thaw, or asha where study.sampler is not curves.
        min_epochs: The first rung, in epochs; median's first comparison. None: 4; with
            freeze_thaw about a seventh of max_epochs, until the curves suggest another one.
        reduction_factor: Rungs of asha lie at min_epochs times its powers.
        cost_aware: Whether freeze_thaw divides a trial's expected gain by the GPU-seconds that
            its epochs take.
    """

    name: Scheduler | None = None
    min_epochs: int | None = Field(default=None, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    cost_aware: bool = False


class ResourcesConfig(FrozenConfig):
    """What one trial takes, and how many run at a time.

    Attributes:
        cpus_per_trial: CPUs of each process; None: its GPU's share of the node's, or one.
        gpus_per_trial: GPUs of each process, from 0 to 1; None: one where there are any.
        workers_per_trial: How many processes train a trial, and the winner, together.
        max_concurrent_trials: At most so many trials run at a time; None: as many as fit.
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
    """Ends the search when more trials are not worth it.

    Attributes:
        gain_per_gpu_hour: The search ends when it expects less improvement of the metric than
            this from another GPU-hour.
    """

    gain_per_gpu_hour: float = Field(gt=0)


class BudgetConfig(FrozenConfig):
    """What a search may take, in its trials and in the trainings after them; None: no limit.

    With scheduler freeze_thaw and no limit on epochs or hours, the trials may take a quarter of
    the epochs of num_trials full trainings, and at least as many as bring each trial to the first
    rung and two to their end.

    Attributes:
        total_epochs: Epochs of all trials and of all trainings after them.
        gpu_hours: GPU-hours of the same; a process without a GPU counts as one with a GPU.
        wall_clock_hours: Hours of the clock while the search runs, in all its attempts.
        disk_bytes: Bytes that the trials' checkpoints may take.
        stop_when: Ends the search by what freeze_thaw's surrogate expects of more trials.
    """

    total_epochs: int | None = Field(default=None, ge=1)
    gpu_hours: float | None = Field(default=None, gt=0)
    wall_clock_hours: float | None = Field(default=None, gt=0)
    disk_bytes: int | None = Field(default=None, ge=1)
    stop_when: StopWhen | None = None


class RetrainConfig(FrozenConfig):
    """How finalists are compared, and how the winner is trained.

    The best trials and the default configuration are trained again on fresh seeds, and the best
    on average wins. With several objectives nothing is compared: `study.select` says which
    trials are delivered.

    Attributes:
        max_epochs: Length of these trainings; None: train.max_epochs.
        top_k: How many trials are finalists, and keep their checkpoints.
        seeds: On how many fresh seeds each finalist is trained; 0: nothing is compared, and the
            best trial is the winner.
    """

    max_epochs: int | None = Field(default=None, ge=1)
    top_k: int = Field(default=3, ge=1)
    seeds: int = Field(default=3, ge=0)
