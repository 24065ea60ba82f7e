"""Finalists: the best trials and the default configuration, each trained again on fresh seeds.

The value of the best of many trials is biased upwards, because the maximum of noisy values was
selected. A finalist's value on fresh seeds has no such bias; where val is split off train, fresh
seeds also draw other val images.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from hpo.config.objectives import TRIAL_COSTS, Constraint
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, Space, apply_params, params_key
from hpo.selection.selection import selected
from hpo.selection.verdict import DEFAULT, FreshTraining, Verdict, judge, with_teacher
from hpo.study.study import SearchStudy
from hpo.study.trial import EndReason, TrialStatus, TrialSummary
from sgformer.config import DistillationConfig, TrainConfig
from sgformer.validation import FrozenConfig

# The limits that count the finalists' trainings, too, beside retrain.max_share.
LIMITS: Final = ("total_epochs", "gpu_hours", "wall_clock_hours")


class AskedFor(FrozenConfig):
    """The settings that finalists were chosen with; a changed setting makes the choice invalid.

    Attributes:
        num_trials: The number of trials in the study.
        top_k, seeds, max_epochs: The settings of the search file's section `retrain`.
    """

    num_trials: int
    top_k: int
    seeds: int
    max_epochs: int | None


class Finalists(FrozenConfig):
    """The trials to compare, as the study stores them: all that were requested, and the cut.

    Attributes:
        numbers: Trials that there is room for, the most promising first.
        asked_for: The settings that the finalists were chosen with.
        num_seeds: Fresh seeds that there is room for, at most asked_for.seeds.
        num_val_images: The number of images in val.
        fold_ratio: Val images per training image; None: val is not split off train.
        everyone: All requested trials; None in a study of an earlier version.
        limits: The search's limits at the time of the cut, by name, `max_share` among them; None
            in a study of an earlier version.
        is_cut_by_share: Whether `retrain.max_share` cut more than the search's limits did.
    """

    numbers: tuple[int, ...]
    asked_for: AskedFor
    num_seeds: int
    num_val_images: int
    fold_ratio: float | None
    everyone: tuple[int, ...] | None = None
    limits: dict[str, float | None] | None = None
    is_cut_by_share: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether there was room for fewer finalists or seeds than requested."""
        everyone = self.numbers if self.everyone is None else self.everyone
        return len(self.numbers) < len(everyone) or self.num_seeds < self.asked_for.seeds

    @property
    def is_cut_to_one(self) -> bool:
        """Whether only one of several finalists was left, so that nothing is compared."""
        others = self.is_cut if self.everyone is None else len(self.everyone) > 1
        return len(self.numbers) == 1 and others

    def cut_to(self, num_seeds: int, num_rivals: int) -> Self:
        """A copy with fewer seeds, the default and the `num_rivals` most promising others."""
        rivals = [number for number in self.numbers if number != DEFAULT]
        kept = {DEFAULT, *rivals[:num_rivals]}
        numbers = tuple(number for number in self.numbers if number in kept)
        return self.model_copy(update={"numbers": numbers, "num_seeds": num_seeds})


def retrain_config(config: SearchConfig, params: Params, i: int = 0) -> TrainConfig:
    """A trial's configuration at full length, on the i-th fresh seed, i = 0, 1, ...

    Where val is split off train, each fresh seed draws another val split, so that finalists are
    not measured on the images that they were selected by. Every epoch is measured on all of val,
    also where trials were on `eval_images` of it.
    """
    train = apply_params(config.train, params, "the winner's params")
    if config.retrain.max_epochs not in (None, train.max_epochs):
        train = train.with_epochs(config.retrain.max_epochs)
    data = train.data.model_copy(update={"val_seed": train.data.val_seed + 1 + i})
    device = "cpu" if config.resources.gpus_per_trial == 0 else train.device
    update = {"seed": train.seed + 1 + i, "data": data, "device": device, "eval_images": None}
    return train.model_copy(update=update)


def trainings_of(
    config: SearchConfig, trials: Sequence[TrialSummary], finalists: Finalists
) -> Iterator[tuple[int, TrainConfig]]:
    """Yields number and configuration of each finalist's trainings, seed by seed.

    All finalists share the same seeds. A single finalist wins without training, unless it is to
    be compared with itself without its teacher, or combined with itself on other seeds.
    """
    params = {trial.number: trial.params for trial in trials}
    teacher, is_combined = config.train.distillation.teacher, config.retrain.deliver != "winner"
    are_trained = len(finalists.numbers) > 1 or teacher or is_combined
    for i in range(finalists.num_seeds if are_trained else 0):
        for number in finalists.numbers:
            yield number, retrain_config(config, params[number], i)


def trainings_without_teacher(
    config: SearchConfig, trials: Sequence[TrialSummary], verdict: Verdict
) -> Iterator[tuple[int, TrainConfig]]:
    """Yields the winner's number and its configuration without its teacher, seed by seed.

    They show what the teacher adds. There are none if the winner has no teacher, or if nothing
    was compared.
    """
    params = next(trial.params for trial in trials if trial.number == verdict.winner)
    for i in range(len(verdict.trainings)):
        train = retrain_config(config, params, i)
        if train.distillation.is_used:
            yield verdict.winner, train.model_copy(update={"distillation": DistillationConfig()})


def training_name(number: int, train: TrainConfig) -> str:
    """The name of a finalist's training: its key in the study and its folder's name."""
    return f"{number}-{train.fingerprint()}"


def has_candidates(trials: Sequence[TrialSummary]) -> bool:
    """Whether any trial may win, including paused and stopped trials, which are retrained."""
    return any(_is_sound(trial) and trial.is_feasible for trial in trials)


def choose_finalists(
    trials: Sequence[TrialSummary], ranking: Sequence[int], top_k: int, space: Space
) -> tuple[int, ...]:
    """Numbers of the finalists: the first `top_k` trials of the ranking, and the default.

    Chosen trials differ in their params, satisfy the constraints, and neither failed nor
    diverged. The default configuration is included for comparison unless it failed or diverged,
    even if it violates a constraint.
    """
    by_number = {trial.number: trial for trial in trials}
    chosen: dict[tuple[Any, ...], int] = {}
    for number in ranking:
        trial = by_number[number]
        if len(chosen) < top_k and _is_sound(trial) and trial.is_feasible:
            chosen.setdefault(params_key(trial.params, space), number)
    default = by_number.get(DEFAULT)
    if default is not None and _is_sound(default) and DEFAULT not in chosen.values():
        chosen.pop(params_key(default.params, space), None)
        return (*chosen.values(), DEFAULT)
    return tuple(chosen.values())


def _is_sound(trial: TrialSummary) -> bool:
    """Whether the trial has a value that is not NaN, and neither failed nor diverged."""
    has_diverged = trial.attributes.get("end_reason") == EndReason.DIVERGED
    is_broken = trial.state == TrialStatus.FAIL or has_diverged
    return not is_broken and any(not math.isnan(value) for value in trial.curve.values())


def limits_of(config: SearchConfig) -> dict[str, float | None]:
    """The limits that count the finalists' trainings, by name; None: no limit."""
    limits = {name: config.limits[name] for name in LIMITS}
    return limits | {"max_share": config.retrain.max_share}


def may_grow(config: SearchConfig, study: SearchStudy, known: Finalists) -> bool:
    """Whether a limit cut these finalists, and one has been raised since."""
    earlier = {"max_share": None}  # an earlier version had no such limit
    was = earlier | (known.limits or study.metadata.limits_reached or {})
    return known.is_cut and any(
        _is_raised(was.get(name, -math.inf), now) for name, now in limits_of(config).items()
    )


def _is_raised(was: float | None, now: float | None) -> bool:
    """Whether limit `now` is higher than limit `was`; None: no limit."""
    return was is not None and (now is None or now > was)


def asked_for(config: SearchConfig, trials: Sequence[TrialSummary]) -> AskedFor:
    """The settings that finalists of this config and these trials are chosen with."""
    asked = config.retrain.model_dump(include={"top_k", "seeds", "max_epochs"})
    return AskedFor(num_trials=len(trials), **asked)


def read_finalists(study: SearchStudy) -> Finalists | None:
    """The finalists that the study stores; None before they are chosen."""
    kept = study.metadata.finalists
    return None if kept is None else Finalists.model_validate(kept)


def is_settled(config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]) -> bool:
    """Whether the finalists are chosen with the config's settings, and all trained.

    Finalists that a limit has cut count as settled until a limit is raised.
    """
    if not config.compares_finalists:
        return True
    known = read_finalists(study)
    if known is None or known.asked_for != asked_for(config, trials):
        return False
    if may_grow(config, study, known):
        return False
    num_done, num_trainings = comparison_progress(config, study, trials) or (0, 0)
    verdict = read_verdict(config, study, trials) if num_done == num_trainings else None
    if verdict is None:
        return num_done == num_trainings
    done = study.metadata.fresh_trainings
    alone = trainings_without_teacher(as_asked(config, known), trials, verdict)
    return all(training_name(*one) in done for one in alone) or is_left_out(config, study)


def is_left_out(config: SearchConfig, study: SearchStudy) -> bool:
    """Whether the budget had no room for the winner without its teacher, and none was raised."""
    was = study.metadata.alone_left_out
    return was is not None and not any(
        _is_raised(was.get(name), now) for name, now in limits_of(config).items()
    )


def comparison_progress(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> tuple[int, int] | None:
    """Numbers of ended and of all trainings of the finalists; None: no such trainings."""
    finalists, done = read_finalists(study), study.metadata.fresh_trainings
    if finalists is None or finalists.asked_for != asked_for(config, trials):
        return None
    names = [training_name(*one) for one in trainings_of(config, trials, finalists)]
    return (sum(name in done for name in names), len(names)) if names else None


def read_verdict(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> Verdict | None:
    """The verdict on the finalists; None until they are chosen and all trained.

    It is based on the settings that the finalists were chosen with, not on the config's present
    ones.
    """
    finalists, done = read_finalists(study), study.metadata.fresh_trainings
    if finalists is None or finalists.asked_for.num_trials != len(trials):
        return None
    config = as_asked(config, finalists)
    names = [training_name(*one) for one in trainings_of(config, trials, finalists)]
    if not finalists.numbers or not all(name in done for name in names):
        return None
    default = next((trial for trial in trials if trial.number == DEFAULT), None)
    verdict = judge(
        finalists.numbers,
        [FreshTraining(**done[name]) for name in names],
        config.study.metric,
        finalists.num_val_images,
        finalists.fold_ratio,
        default_may_win=default is None or default.is_feasible,
        bounds=late_bounds(config),
        is_cut_to_one=finalists.is_cut_to_one,
        is_cut_by_share=finalists.is_cut_by_share,
    )
    if verdict is None:
        return None
    names = [training_name(*one) for one in trainings_without_teacher(config, trials, verdict)]
    if not all(name in done for name in names):
        return verdict
    alone = [FreshTraining(**done[name]) for name in names]
    return with_teacher(verdict, alone, finalists.num_val_images, finalists.fold_ratio)


def as_asked(config: SearchConfig, finalists: Finalists) -> SearchConfig:
    """The config with the settings that the finalists were chosen with."""
    asked = finalists.asked_for.model_dump(exclude={"num_trials"})
    retrain = config.retrain.model_copy(update=asked)
    return config.model_copy(update={"retrain": retrain})


def late_bounds(config: SearchConfig) -> tuple[Constraint, ...]:
    """The constraints on costs that are measured when a training has come to its end."""
    return tuple(c for c in config.study.constraints if c.name in TRIAL_COSTS)


def winners_of(
    config: SearchConfig, trials: Sequence[TrialSummary], verdict: Verdict | None
) -> tuple[TrialSummary, ...]:
    """The winner of the verdict; without a verdict the trials of `study.select`, best/'s first.

    Where finalists are compared under a bound on a cost of trained models, only these comparisons
    tell who keeps to it.
    """
    if verdict is None and config.compares_finalists and late_bounds(config):
        return ()
    if verdict is None:
        return selected(trials, config.study)
    return tuple(trial for trial in trials if trial.number == verdict.winner)


def winner_of(
    config: SearchConfig, trials: Sequence[TrialSummary], verdict: Verdict | None
) -> TrialSummary | None:
    """The trial whose model goes into best/; None: no trial may win."""
    return next(iter(winners_of(config, trials, verdict)), None)
