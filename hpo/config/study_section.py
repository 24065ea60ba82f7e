"""The section `study` of a search file."""

from typing import Any, Literal, cast

from pydantic import Field, ValidationInfo, field_validator

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
from hpo.config.search_space import Value
from hpo.config.storage_url import HOW_TO_ENCODE, has_password
from sgformer.config import Metric
from sgformer.validation import FrozenConfig

Select = Literal["best", "knee", "front"]
Sampler = Literal["curves", "tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random", "grid"]


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
