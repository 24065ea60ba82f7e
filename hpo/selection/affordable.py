"""Cuts the finalists, and the number of fresh seeds, to what they may cost."""

from collections.abc import Callable, Container, Sequence

from hpo.config.schema import SearchConfig
from hpo.selection.finalists import (
    Finalists,
    asked_for,
    choose_finalists,
    limits_of,
    may_grow,
    read_finalists,
    training_name,
    trainings_of,
)
from hpo.selection.ranking import predicted_ranking
from hpo.selection.verdict import DEFAULT
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary


def finalists_within_budget(
    config: SearchConfig,
    study: SearchStudy,
    num_val_images: int,
    fold_ratio: float | None,
    lets_train: Callable[[Sequence[int]], bool],
    keeps_to_share: Callable[[Sequence[int]], bool],
) -> Finalists:
    """The finalists to compare: the stored ones while they are valid, else newly chosen ones.

    Finalists that a limit has cut stay unchanged until a limit is raised. Then more of them are
    compared, as the limits allow; finished trainings are not repeated.

    Args:
        config: The config of the search.
        study: The study of the search; nothing is written to it.
        num_val_images: The number of images in val.
        fold_ratio: Val images per training image; None: val is not split off train.
        lets_train: Says whether the budget has room to retrain the trials with these numbers.
        keeps_to_share: Says whether training these trials, finished trainings included, keeps to
            `retrain.max_share`.
    """
    trials, known = study.trials(), read_finalists(study)
    asked = asked_for(config, trials)
    if known is not None and known.asked_for != asked:
        known = None
    if known is not None and not may_grow(config, study, known):
        return known
    numbers = (known and known.everyone) or _best_of(config, study, trials)
    everyone = Finalists(
        numbers=numbers,
        asked_for=asked,
        num_seeds=asked.seeds,
        num_val_images=num_val_images,
        fold_ratio=fold_ratio,
        everyone=numbers,
        limits=limits_of(config),
    )
    done = study.metadata.fresh_trainings
    by_budget = affordable(config, trials, everyone, done, lets_train)
    found = affordable(config, trials, by_budget, (), keeps_to_share)
    is_kept = known is not None and _size(found) <= _size(known)
    kept = known if known is not None and is_kept else found
    return kept.model_copy(
        update={
            "limits": everyone.limits,
            "everyone": numbers,
            "is_cut_by_share": _size(kept) < _size(by_budget),
        }
    )


def _best_of(
    config: SearchConfig, study: SearchStudy, trials: Sequence[TrialSummary]
) -> tuple[int, ...]:
    facts = study.metadata
    ranking = predicted_ranking(config, trials, facts.model_state, facts.first_levels)
    return choose_finalists(trials, ranking, config.retrain.top_k, config.space)


def affordable(
    config: SearchConfig,
    trials: Sequence[TrialSummary],
    everyone: Finalists,
    done: Container[str],
    lets_train: Callable[[Sequence[int]], bool],
) -> Finalists:
    """The finalists and the number of seeds that a limit has room for.

    Seeds are cut first. If the limit lacks room for all finalists on one seed, only the most
    promising ones and the default configuration stay, and in any case one finalist.

    Args:
        config: The config of the search.
        trials: All trials of the study.
        everyone: All finalists, with the requested number of seeds.
        done: Names of finished trainings, which cost nothing more.
        lets_train: Says whether the limit has room to retrain the trials with these numbers.
    """
    num_rivals = sum(number != DEFAULT for number in everyone.numbers)

    def fits(some: Finalists) -> bool:
        each = trainings_of(config, trials, some)
        due = [n for n, train in each if training_name(n, train) not in done]
        return not due or lets_train(due)

    fewer_seeds = (everyone.cut_to(n, num_rivals) for n in range(everyone.num_seeds, 0, -1))
    fewer_rivals = (everyone.cut_to(1, n) for n in range(num_rivals - 1, 0, -1))
    one = everyone.model_copy(update={"numbers": everyone.numbers[:1], "num_seeds": 1})
    return next((some for some in (*fewer_seeds, *fewer_rivals) if fits(some)), one)


def _size(finalists: Finalists) -> tuple[int, int]:
    """Numbers of seeds and of finalists; the larger tuple compares more."""
    return finalists.num_seeds, len(finalists.numbers)


def cut_text(config: SearchConfig, finalists: Finalists) -> str:
    """What a limit has left of the finalists' trainings, and what all of them would take."""
    everyone, asked = finalists.everyone or finalists.numbers, finalists.asked_for
    if finalists.is_cut_to_one:
        room = "one finalist, so nothing is compared"
    elif len(finalists.numbers) < len(everyone):
        room = f"{len(finalists.numbers)} of {len(everyone)} finalists, on one fresh seed"
    else:
        room = f"{finalists.num_seeds} of retrain.seeds={asked.seeds}"
    share = config.retrain.max_share
    is_by_share = finalists.is_cut_by_share and share is not None
    what = f"retrain.max_share={share:g}" if is_by_share else "the budget"
    larger = "retrain.max_share, or null" if is_by_share else "budget"
    return (
        f"{what} leaves room for {room}. All {len(everyone)} finalists on {asked.seeds} fresh "
        f"seeds would take {len(everyone) * asked.seeds} trainings of {config.fresh_epochs} "
        f"epochs; for more of them, resume with a larger {larger}"
    )
