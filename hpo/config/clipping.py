"""Clips settings of a search file that exceed what others allow."""

from hpo.config.combinations import grid_points
from hpo.config.schema import DEFAULT_MIN_EPOCHS, SchedulerConfig, SearchConfig, StudyConfig
from sgformer.config import TrainConfig


def clip(config: SearchConfig) -> tuple[SearchConfig, tuple[str, ...]]:
    """Clips settings that exceed max_epochs, the grid or num_trials; a note tells of each change.

    Raises:
        ConfigError: The sampler is grid, and the space has continuous parameters, or too many
            configurations.
    """
    notes: list[str] = []
    clipped = {
        "train": _clip_warmup(config, notes),
        "scheduler": _clip_min_epochs(config, notes),
        "study": _clip_guesses(_clip_to_grid(config, notes), notes),
    }
    return config.model_copy(update=clipped), tuple(notes)


def _clip_warmup(config: SearchConfig, notes: list[str]) -> TrainConfig:
    train = config.train.with_epochs(config.train.max_epochs)
    if train != config.train:
        notes.append(
            f"train.optimizer.warmup_epochs: {config.train.optimizer.warmup_epochs:g} clipped to "
            f"{train.optimizer.warmup_epochs:g}, half of max_epochs"
        )
    return train


def _clip_min_epochs(config: SearchConfig, notes: list[str]) -> SchedulerConfig:
    """The scheduler with a first rung below max_epochs.

    A missing min_epochs gets its default, unless learning curves are to choose the first rung.
    """
    scheduler, max_epochs = config.scheduler, config.train.max_epochs
    if scheduler.name == "none":
        return scheduler
    may_be_chosen = bool(config.study.warm_start) and max_epochs > DEFAULT_MIN_EPOCHS
    if scheduler.min_epochs is None and scheduler.name != "freeze_thaw" and not may_be_chosen:
        scheduler = scheduler.model_copy(update={"min_epochs": DEFAULT_MIN_EPOCHS})
    if scheduler.min_epochs is None or scheduler.min_epochs < max_epochs:
        return scheduler
    low = max(1, max_epochs // scheduler.reduction_factor)
    if low < scheduler.min_epochs:
        notes.append(
            f"scheduler.min_epochs: {scheduler.min_epochs} clipped to {low}, below max_epochs"
        )
    return scheduler.model_copy(update={"min_epochs": low})


def _clip_guesses(study: StudyConfig, notes: list[str]) -> StudyConfig:
    """The unchanged study; a note tells how many guesses `num_trials` has room for, if not all."""
    num_guesses = min(len(study.enqueue), max(0, study.num_trials - 1))
    if num_guesses < len(study.enqueue):
        notes.append(
            f"study.enqueue: {num_guesses} of {len(study.enqueue)} guesses will be tried: "
            f"study.num_trials is {study.num_trials}, with the default"
        )
    return study


def _clip_to_grid(config: SearchConfig, notes: list[str]) -> StudyConfig:
    """The study, with num_trials clipped to the number of grid points for sampler grid."""
    study = config.study
    if study.sampler != "grid":
        return study
    num_points = len(grid_points(config.space))
    if study.num_trials <= num_points:
        return study
    notes.append(f"study.num_trials: {study.num_trials} clipped to {num_points}, the whole grid")
    return study.model_copy(update={"num_trials": num_points})
