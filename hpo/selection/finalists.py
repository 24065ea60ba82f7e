"""Who wins: the best trials and the default configuration, each trained again on fresh seeds.

A trial is the best of many by its value, which therefore is too good: chance has helped it. What
a finalist reaches on seeds, and where val is split off train on val images, that no trial has
seen does not depend on that.
"""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.config.schema import RetrainConfig, SearchConfig
from hpo.config.search_space import Params, apply_params
from hpo.schedulers.first_rung import read_first_levels
from hpo.selection.selection import pareto_front, selected
from hpo.selection.verdict import DEFAULT, FreshTraining, Verdict, judge
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import FrozenConfig, TrainConfig, maximises

if TYPE_CHECKING:
    from hpo.schedulers.freeze_thaw import FreezeThaw


class AskedFor(FrozenConfig):
    """What finalists are chosen from, and how they are compared: those of other settings differ.

    `num_trials` is how many the study had; the others are RetrainConfig's.
    """

    num_trials: int
    top_k: int
    seeds: int
    max_epochs: int | None


class Finalists(FrozenConfig):
    """Which trials are compared, as the study keeps it.

    `numbers` are the trials', the most promising first, and `num_seeds` those of the seeds asked
    for, as far as the budget has left room; the others are of `ValImages`.
    """

    numbers: tuple[int, ...]
    asked_for: AskedFor
    num_seeds: int
    num_val_images: int
    fold_ratio: float | None


def retrain_config(config: SearchConfig, params: Params, i: int = 0) -> TrainConfig:
    """A trial's configuration at full length, on the i-th seed that no trial has seen.

    Where val is split off train, it is split anew: what the search has been picked by is not
    what it is measured on.
    """
    train = apply_params(config.train, params, "the winner's params")
    if config.retrain.max_epochs not in (None, train.max_epochs):
        train = train.with_epochs(config.retrain.max_epochs)
    data = train.data.model_copy(update={"val_seed": train.data.val_seed + 1 + i})
    device = "cpu" if config.resources.gpus_per_trial == 0 else train.device
    return train.model_copy(update={"seed": train.seed + 1 + i, "data": data, "device": device})


def predicted_ranking(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    model_state: list[float] | None = None,
    first_levels: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, ...]:
    """Numbers of trials, the one first that promises the best value at its end.

    A model of all curves says that, also of trials that did not come to their end. Where no
    scheduler stops any (`none`), and with several objectives, their values do, of those that came
    to their end; of several the Pareto front comes first.

    Args:
        config: Of the search.
        trials: Of its study.
        model_state: Likewise; what the model begins from.
        first_levels: Likewise.
    """
    if not config.ranks_by_curves:
        sign = 1 if maximises(config.study.metric) else -1
        values = {t.number: sign * t.value for t in trials if t.value is not None}
        by_value = sorted(values, key=lambda number: (-values[number], number))
        several = config.study.has_several_objectives
        front = pareto_front(trials, config.study) if several else ()
        return tuple(dict.fromkeys((*(trial.number for trial in front), *by_value)))
    return model_of(config, trials, model_state, first_levels).ranking()


def model_of(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    model_state: list[float] | None = None,
    first_levels: Sequence[Mapping[str, Any]] = (),
    is_allowed: Callable[[Params], bool] | None = None,
) -> "FreezeThaw":
    """What scheduler freeze_thaw learns from these trials; arguments as predicted_ranking's."""
    from hpo.schedulers.freeze_thaw import FreezeThaw

    thaw = FreezeThaw(
        config.space,
        config.train.max_epochs,
        maximise=maximises(config.study.metric),
        seed=config.study.seed,
        first_level=config.scheduler.min_epochs,
        is_allowed=is_allowed,
    )
    for trial in trials:
        thaw.started(trial.number, trial.params)
        thaw.reported(trial.number, trial.curve)
        if trial.state == "COMPLETE" and trial.value is not None:
            thaw.completed(trial.number, trial.value)
        elif trial.state == "FAIL":
            thaw.failed(trial.number)
        else:
            thaw.pruned(trial.number, diverged=trial.attributes.get("end_reason") == "diverged")
    thaw.model_state = model_state
    thaw.set_first_levels(read_first_levels(first_levels))
    return thaw


def choose_finalists(
    trials: Sequence[TrialSummary], ranking: Sequence[int], top_k: int
) -> tuple[int, ...]:
    """The first `top_k` of different params, and the default configuration, unless it broke.

    They keep to the constraints; the default need not, to be compared with.
    """
    by_number = {trial.number: trial for trial in trials}
    chosen: dict[tuple[Any, ...], int] = {}
    for number in ranking:
        trial = by_number[number]
        if len(chosen) < top_k and _is_sound(trial) and trial.is_feasible:
            chosen.setdefault(tuple(trial.params.items()), number)
    default = by_number.get(DEFAULT)
    if default is not None and _is_sound(default) and DEFAULT not in chosen.values():
        chosen.pop(tuple(default.params.items()), None)
        return (*chosen.values(), DEFAULT)
    return tuple(chosen.values())


def has_candidates(trials: Sequence[TrialSummary]) -> bool:
    """Whether any trial may win: it need not have come to its end, to be trained anew."""
    return any(_is_sound(trial) and trial.is_feasible for trial in trials)


def affordable(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    everyone: Finalists,
    done: Container[str],
    lets_train: Callable[[Sequence[int]], bool],
) -> Finalists:
    """Those that the budget pays for: on fewer seeds, or if not all on one, fewer of them.

    Fewer are the most promising with the default configuration, at least one of all.

    Args:
        config: Of the search.
        trials: Of its study.
        everyone: The finalists, on as many seeds as are asked for.
        done: Names of trainings that need not be repeated.
        lets_train: Whether the budget has room for trainings, by trials' numbers.
    """
    others = [number for number in everyone.numbers if number != DEFAULT]

    def changed(num_seeds: int, num_others: int) -> Finalists:
        kept = {DEFAULT, *others[:num_others]}
        numbers = tuple(number for number in everyone.numbers if number in kept)
        return everyone.model_copy(update={"numbers": numbers, "num_seeds": num_seeds})

    def fits(some: Finalists) -> bool:
        each = trainings_of(config, trials, some)
        return lets_train([n for n, train in each if training_name(n, train) not in done])

    fewer_seeds = (changed(n, len(others)) for n in range(everyone.num_seeds, 0, -1))
    fewer_trials = (changed(1, n) for n in range(len(others) - 1, 0, -1))
    one = everyone.model_copy(update={"numbers": everyone.numbers[:1], "num_seeds": 1})
    return next((some for some in (*fewer_seeds, *fewer_trials) if fits(some)), one)


def _is_sound(trial: TrialSummary) -> bool:
    is_broken = trial.state == "FAIL" or trial.attributes.get("end_reason") == "diverged"
    return not is_broken and any(not math.isnan(value) for value in trial.curve.values())


def is_settled(config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]) -> bool:
    """Whether the finalists that the config asks for are known, and all trained."""
    if not config.compares_finalists:
        return True
    known = read_finalists(study)
    if known is None or known.asked_for != asked_for(config, trials):
        return False
    num_done, num_trainings = comparison_progress(config, study, trials) or (0, 0)
    return num_done == num_trainings


def read_finalists(study: SearchStudy) -> Finalists | None:
    """Those that the study keeps; None before they are chosen."""
    return (
        None
        if study.metadata.finalists is None
        else Finalists.model_validate(study.metadata.finalists)
    )


def asked_for(config: SearchConfig, trials: Sequence[TrialSummary]) -> AskedFor:
    return AskedFor(num_trials=len(trials), **config.retrain.model_dump())


def trainings_of(
    config: SearchConfig, trials: Sequence[TrialSummary], finalists: Finalists
) -> Iterator[tuple[int, TrainConfig]]:
    """Trials' numbers with what is trained: all on the same seeds; nothing of one alone."""
    params = {trial.number: trial.params for trial in trials}
    for i in range(finalists.num_seeds if len(finalists.numbers) > 1 else 0):
        for number in finalists.numbers:
            yield number, retrain_config(config, params[number], i)


def training_name(number: int, train: TrainConfig) -> str:
    """Of its folder, and in the study."""
    return f"{number}-{train.fingerprint()}"


def read_verdict(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> Verdict | None:
    """What the finalists' trainings say; None while they are not chosen, or not all trained."""
    finalists, done = read_finalists(study), study.metadata.fresh_trainings
    if finalists is None or finalists.asked_for.num_trials != len(trials):
        return None
    as_asked = RetrainConfig(**finalists.asked_for.model_dump(exclude={"num_trials"}))
    config = config.model_copy(update={"retrain": as_asked})
    names = [training_name(*one) for one in trainings_of(config, trials, finalists)]
    if not finalists.numbers or not all(name in done for name in names):
        return None
    trainings = [FreshTraining(**done[name]) for name in names]
    default = next((trial for trial in trials if trial.number == DEFAULT), None)
    return judge(
        finalists.numbers,
        trainings,
        config.study.metric,
        finalists.num_val_images,
        finalists.fold_ratio,
        default_may_win=default is None or default.is_feasible,
    )


def comparison_progress(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> tuple[int, int] | None:
    """Finalists' trainings that have ended, and all; None while there is nothing to compare."""
    finalists, done = read_finalists(study), study.metadata.fresh_trainings
    if finalists is None or finalists.asked_for != asked_for(config, trials):
        return None
    names = [training_name(*one) for one in trainings_of(config, trials, finalists)]
    return (sum(name in done for name in names), len(names)) if names else None


def winners_of(
    config: SearchConfig, trials: Sequence[TrialSummary], verdict: Verdict | None
) -> tuple[TrialSummary, ...]:
    """The finalist that won; without a comparison what `study.select` says, best/'s first."""
    if verdict is None:
        return selected(trials, config.study)
    return tuple(trial for trial in trials if trial.number == verdict.winner)


def winner_of(
    config: SearchConfig, trials: Sequence[TrialSummary], verdict: Verdict | None
) -> TrialSummary | None:
    """The trial that best/ is of; None: there is none."""
    return next(iter(winners_of(config, trials, verdict)), None)
