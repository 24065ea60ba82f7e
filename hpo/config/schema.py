"""SearchConfig: a search file, resolved and checked."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from hpo.config.grid_points import grid_points
from hpo.config.objectives import METRICS, Constraint, Direction, Objective, ObjectiveName
from hpo.config.rungs import first_rung
from hpo.config.search_space import Parameter, Value
from hpo.config.space_checks import check_guess, check_space
from hpo.config.storage_url import HOW_TO_ENCODE, has_password
from sgformer.config import (
    FrozenConfig,
    Metric,
    TrainConfig,
    nearest_known,
    validate,
)
from sgformer.errors import ConfigError

Select = Literal["best", "knee", "front"]
Sampler = Literal["curves", "tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random", "grid"]
Scheduler = Literal["freeze_thaw", "asha", "asha_promotion", "hyperband", "median", "none"]

PAUSING: Final = ("freeze_thaw", "asha_promotion")
# With several objectives; the others compare trials by one value.
SCHEDULERS_OF_SEVERAL: Final = ("asha", "hyperband", "none")
SAMPLERS_OF_SEVERAL: Final = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random", "grid")

DEFAULT_MIN_EPOCHS: Final = 4  # but of freeze_thaw
DEFAULT_SHARE_OF_EPOCHS: Final = 0.25  # of freeze_thaw: what asha takes, about


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
        if storage is not None and has_password(storage):
            raise ValueError(
                f"holds a password; pass the whole URL in HPO_STORAGE instead ({HOW_TO_ENCODE})"
            )
        return storage

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
        are the trials' alone where they follow from the number of trials. They are counted to the
        default first rung: where earlier studies raise it, fewer new trials come to theirs.
        """
        num_trials, budget = self.study.num_trials, self.budget
        total_epochs, stop_when = budget.total_epochs, budget.stop_when
        is_limited = any((total_epochs, budget.gpu_hours, budget.wall_clock_hours))
        if self.scheduler.name == "freeze_thaw" and not is_limited:
            max_epochs = self.train.max_epochs
            first_level = self.scheduler.min_epochs or first_rung(max_epochs)
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


# What a resumed run may change: nothing that would make its trials incomparable.
CHANGEABLE: Final = (
    "study.num_trials",
    "study.max_retries",
    "study.select",
    "budget",
    "resources",
    "retrain",
    "train.device",
    "train.data.data_dir",
    "train.data.num_workers",
    "train.data.cache_dir",
    "train.data.cache_bytes",
    "train.optimizer.micro_batch_size",
)


def load_search_config(
    path: Path,
    overrides: Iterable[str] = (),
    data_dir: Path | None = None,
    name: str | None = None,
) -> tuple[SearchConfig, tuple[str, ...]]:
    """The search file with the overrides applied, checked; and notes on what was adjusted.

    Args:
        path: The YAML file.
        overrides: `path=value` each, as in `--set`.
        data_dir: Replaces train.data.data_dir; kept absolute.
        name: Replaces study.name, which is the file's name if it says none.

    Raises:
        ConfigError: The file cannot be read, or something in it is wrong.
    """
    values = _read_yaml(path)
    for override in overrides:
        _set(values, override)
    if data_dir is not None:
        _set_value(values, ["train", "data", "data_dir"], str(data_dir))
    if name is not None:
        _set_value(values, ["study", "name"], name)
    source = str(path)
    config = validate(SearchConfig, values, source)
    config = _fill_in(config, default_name=path.stem)
    config, notes = clip(config)
    check_space(config.train, config.space, source)
    for params in config.study.enqueue:
        check_guess(params, config.space, "study.enqueue", source)
    return config, notes


def dump_search_config(config: SearchConfig) -> str:
    """The config as YAML that `load_search_config` reads back to the same."""
    values = config.model_dump(mode="json")
    for parameter in values["space"].values():
        if not parameter["when"]:
            del parameter["when"]
    return yaml.safe_dump(values, sort_keys=False, width=99)


def differences(old: SearchConfig, new: SearchConfig) -> tuple[str, ...]:
    """What differs and may not, on a resume: 'path: old -> new' each."""
    before, after = (dict(_flatten(c.model_dump(mode="json"))) for c in (old, new))
    return tuple(
        f"{path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
        and not any(path == may or path.startswith(f"{may}.") for may in CHANGEABLE)
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's readers take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    problem = f"{key.value!r} is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                known.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ConfigError(f"search file is a folder: {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read search file {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} is not a search file: expected sections such as study, space and train, "
            f"got {type(values).__name__}"
        )
    return values


def _set(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set takes path=value, got {override!r}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"--set {path}: the value is not YAML: {text!r}") from None
    parts = _split_path(values, path)
    _check_new_parameter(values, parts, value)
    _set_value(values, parts, value)


def _split_path(values: Mapping[str, Any], path: str) -> list[str]:
    """Parts of a dotted path; a searched parameter's name is one part though it has dots."""
    section, _, rest = path.partition(".")
    space = values.get("space")
    if section != "space" or not rest or not isinstance(space, dict):
        return path.split(".")
    for name in space:
        if rest == name:
            return [section, name]
        if rest.startswith(f"{name}."):
            return [section, name, *rest.removeprefix(f"{name}.").split(".")]
    return [section, rest]


def _check_new_parameter(values: Mapping[str, Any], path: Sequence[str], value: object) -> None:
    """A searched parameter that is not there yet must be given whole."""
    space = values.get("space")
    if path[0] != "space" or len(path) != 2 or not isinstance(space, dict):
        return
    if path[1] not in space and not isinstance(value, dict):
        raise ConfigError(
            f"--set {'.'.join(path)}: no such searched parameter; "
            f"{nearest_known(path[1], space)}; a new one is given whole, "
            "as in --set 'space.NAME={type: float, low: 0, high: 1}'"
        )


def _set_value(values: dict[str, Any], path: Sequence[str], value: object) -> None:
    for i, part in enumerate(path[:-1]):
        below = values.setdefault(part, {})
        if below is None:
            below = values[part] = {}
        if not isinstance(below, dict):
            raise ConfigError(
                f"{'.'.join(path)}: {'.'.join(path[: i + 1])} is {below!r}, not a section (--set)"
            )
        values = below
    values[path[-1]] = value


def _fill_in(config: SearchConfig, default_name: str) -> SearchConfig:
    study = config.study
    if not study.name:
        study = validate(StudyConfig, {**study.model_dump(), "name": default_name}, "study.name")
    data = config.train.data
    if data.data_dir is not None:
        data = data.model_copy(update={"data_dir": data.data_dir.expanduser().absolute()})
    train = config.train.model_copy(update={"data": data})
    return config.model_copy(update={"study": study, "train": train})


def clip(config: SearchConfig) -> tuple[SearchConfig, tuple[str, ...]]:
    """Shortens min_epochs and warm-up to what max_epochs leaves room for, a grid's trials to it.

    Raises:
        ConfigError: The sampler is grid, and the space is none.
    """
    notes: list[str] = []
    max_epochs = config.train.max_epochs
    train = config.train.with_epochs(max_epochs)
    if train != config.train:
        notes.append(
            f"train.optimizer.warmup_epochs: {config.train.optimizer.warmup_epochs:g} clipped to "
            f"{train.optimizer.warmup_epochs:g}, half of max_epochs"
        )
    scheduler = config.scheduler
    may_be_chosen = bool(config.study.warm_start) and max_epochs > DEFAULT_MIN_EPOCHS
    if (
        scheduler.name not in {"freeze_thaw", "none"}
        and scheduler.min_epochs is None
        and not may_be_chosen
    ):
        scheduler = scheduler.model_copy(update={"min_epochs": DEFAULT_MIN_EPOCHS})
    if (
        scheduler.name != "none"
        and scheduler.min_epochs is not None
        and scheduler.min_epochs >= max_epochs
    ):
        low = max(1, max_epochs // scheduler.reduction_factor)
        if low < scheduler.min_epochs:
            notes.append(
                f"scheduler.min_epochs: {scheduler.min_epochs} clipped to {low}, below max_epochs"
            )
        scheduler = scheduler.model_copy(update={"min_epochs": low})
    study = _clip_to_grid(config, notes)
    num_guesses = min(len(study.enqueue), max(0, study.num_trials - 1))
    if num_guesses < len(study.enqueue):
        notes.append(
            f"study.enqueue: {num_guesses} of {len(study.enqueue)} guesses will be tried: "
            f"study.num_trials is {study.num_trials}, with the default"
        )
    clipped = {"study": study, "train": train, "scheduler": scheduler}
    return config.model_copy(update=clipped), tuple(notes)


def _clip_to_grid(config: SearchConfig, notes: list[str]) -> StudyConfig:
    """A search over a grid ends with its last configuration."""
    study = config.study
    if study.sampler != "grid":
        return study
    num_points = len(grid_points(config.space))
    if study.num_trials <= num_points:
        return study
    notes.append(f"study.num_trials: {study.num_trials} clipped to {num_points}, the whole grid")
    return study.model_copy(update={"num_trials": num_points})


def _flatten(values: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if not isinstance(values, dict):
        return [(prefix, values)]
    items = (_flatten(v, f"{prefix}.{k}" if prefix else k) for k, v in values.items())
    return [pair for group in items for pair in group]
