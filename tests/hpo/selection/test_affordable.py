from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from finalist_trials import finished, tell, trial

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.selection.affordable import affordable, cut_text, finalists_within_budget
from hpo.selection.finalists import (
    Finalists,
    asked_for,
    comparison_progress,
    is_settled,
    read_verdict,
    training_name,
    trainings_of,
)
from hpo.selection.verdict_text import gain_text
from hpo.study.study import SearchStudy


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["retrain.seeds=2", "retrain.top_k=2"])[0]


@pytest.mark.parametrize(
    ("room", "numbers", "num_seeds"),
    [
        (8, (1, 2, 3, 0), 2),
        (7, (1, 2, 3, 0), 1),
        (4, (1, 2, 3, 0), 1),
        (3, (1, 2, 0), 1),
        (2, (1, 0), 1),
        (1, (1,), 1),
    ],
)
def test_a_small_budget_compares_on_fewer_seeds_then_fewer_finalists(
    config: SearchConfig, room: int, numbers: tuple[int, ...], num_seeds: int
) -> None:
    trials = [trial(i, [0.5]) for i in range(4)]
    everyone = Finalists(
        numbers=(1, 2, 3, 0), asked_for=asked_for(config, trials), num_seeds=2,
        num_val_images=100, fold_ratio=None,
    )  # fmt: skip
    found = affordable(config, trials, everyone, (), lambda some: len(some) <= room)
    assert (found.numbers, found.num_seeds) == (numbers, num_seeds)
    names = [training_name(*one) for one in trainings_of(config, trials, everyone)]
    assert affordable(config, trials, everyone, names[: 8 - room], lambda s: len(s) <= room) == (
        everyone
    )


def test_the_default_keeps_its_place_among_fewer_finalists(config: SearchConfig) -> None:
    trials = [trial(i, [0.5]) for i in range(3)]
    everyone = Finalists(
        numbers=(0, 1, 2), asked_for=asked_for(config, trials), num_seeds=1, num_val_images=100,
        fold_ratio=None,
    )  # fmt: skip
    found = affordable(config, trials, everyone, (), lambda some: len(some) <= 2)
    assert found.numbers == (0, 1)


def with_budget(search_file: Path, epochs: int, *more: str) -> SearchConfig:
    overrides = ("retrain.seeds=3", "retrain.top_k=2", "study.num_trials=3")
    return load_search_config(search_file, [*overrides, f"budget.total_epochs={epochs}", *more])[0]


def room_for(num: int) -> Callable[[Sequence[int]], bool]:
    return lambda trainings: len(trainings) <= num


def kept_within(config: SearchConfig, study: SearchStudy, room: int, share: int = 99) -> Finalists:
    """The finalists for which a budget has room, stored in the study with their trainings.

    `share` is how many trainings keep to retrain.max_share.
    """
    found = finalists_within_budget(config, study, 100, None, room_for(room), room_for(share))
    study.metadata.finalists = found.model_dump(mode="json")
    tell(config, study, found, {0: 0.5, 1: 0.8, 2: 0.7})
    return found


@pytest.mark.parametrize(
    ("room", "cut"), [(8, ((1, 2, 0), 2)), (5, ((1, 2, 0), 1)), (2, ((1, 0), 1)), (1, ((1,), 1))]
)
def test_finalists_that_a_budget_has_cut_are_due_again_when_it_is_raised(
    search_file: Path, tmp_path: Path, room: int, cut: tuple[tuple[int, ...], int]
) -> None:
    small = with_budget(search_file, 60)
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    trials = study.trials()
    first = kept_within(small, study, room)
    assert (first.numbers, first.num_seeds) == cut
    assert is_settled(small, study, trials)
    verdict = read_verdict(small, study, trials)
    assert verdict is not None
    assert ("the budget left no room" in gain_text(verdict)) == (room == 1)
    assert kept_within(small, study, 99) == first  # the budget has not been raised
    assert is_settled(with_budget(search_file, 59), study, trials)
    raised = with_budget(search_file, 4000)
    assert not is_settled(raised, study, trials)
    assert kept_within(raised, study, 99).numbers == (1, 2, 0)
    assert comparison_progress(raised, study, trials) == (9, 9)
    assert is_settled(raised, study, trials)
    whole = kept_within(with_budget(search_file, 9999), study, 0)
    assert (whole.numbers, whole.num_seeds) == ((1, 2, 0), 3)


def test_a_raise_that_pays_for_no_more_finalists_settles_them(
    search_file: Path, tmp_path: Path
) -> None:
    small, raised = with_budget(search_file, 60), with_budget(search_file, 61)
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    first = kept_within(small, study, 5)
    assert not is_settled(raised, study, study.trials())
    again = kept_within(raised, study, 2)
    assert (again.numbers, again.num_seeds) == (first.numbers, first.num_seeds)
    assert is_settled(raised, study, study.trials())


def test_whole_finalists_stay_settled_when_the_budget_is_raised(
    search_file: Path, tmp_path: Path
) -> None:
    small = with_budget(search_file, 60)
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    kept_within(small, study, 9)
    assert is_settled(with_budget(search_file, 4000), study, study.trials())


def test_finalists_cut_by_an_earlier_version_grow_with_the_budget(
    search_file: Path, tmp_path: Path
) -> None:
    small = with_budget(search_file, 60)
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    kept = kept_within(small, study, 5).model_dump(mode="json")
    study.metadata.finalists = {k: v for k, v in kept.items() if k not in {"everyone", "limits"}}
    study.metadata.limits_reached = small.limits
    assert is_settled(small, study, study.trials())
    raised = with_budget(search_file, 4000)
    assert not is_settled(raised, study, study.trials())
    assert kept_within(raised, study, 99).num_seeds == 3


@pytest.mark.parametrize(
    ("share", "cut", "words"),
    [
        (5, ((1, 2, 0), 1), "1 of retrain.seeds=3. All"),
        (2, ((1, 0), 1), "2 of 3 finalists, on one fresh seed. All"),
        (1, ((1,), 1), "one finalist, so nothing is compared. All"),
    ],
)
def test_finalists_that_their_share_has_cut_are_due_again_when_it_is_raised(
    search_file: Path, tmp_path: Path, share: int, cut: tuple[tuple[int, ...], int], words: str
) -> None:
    small = with_budget(search_file, 60, "retrain.max_share=0.2")
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    found = kept_within(small, study, 99, share)
    assert (found.numbers, found.num_seeds) == cut
    assert found.is_cut_by_share
    text = cut_text(small, found)
    assert text.startswith(f"retrain.max_share=0.2 leaves room for {words}")
    assert "All 3 finalists on 3 fresh seeds would take 9 trainings of 4 epochs" in text
    assert text.endswith("resume with a larger retrain.max_share, or null")
    assert is_settled(small, study, study.trials())
    verdict = read_verdict(small, study, study.trials())
    assert verdict is not None
    assert "retrain.max_share" in gain_text(verdict)
    raised = with_budget(search_file, 60, "retrain.max_share=null")
    assert not is_settled(raised, study, study.trials())
    assert (kept_within(raised, study, 99).numbers, study.metadata.finalists["num_seeds"]) == (
        (1, 2, 0), 3,
    )  # fmt: skip
    assert is_settled(raised, study, study.trials())


def test_what_a_budget_cuts_more_than_the_share_is_not_said_of_the_share(
    search_file: Path, tmp_path: Path
) -> None:
    small = with_budget(search_file, 60, "retrain.max_share=0.2")
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    found = kept_within(small, study, 1, 5)
    assert (found.numbers, found.is_cut_by_share) == ((1,), False)
    assert cut_text(small, found).endswith("resume with a larger budget")
    verdict = read_verdict(small, study, study.trials())
    assert "the budget left no room" in gain_text(verdict)


@pytest.mark.parametrize(
    ("first", "second", "raised", "is_by_share"),
    [
        ((99, 1), (1, 99), "retrain.max_share=null", False),  # now the budget has no room
        ((1, 99), (99, 1), "budget.total_epochs=4000", True),  # now the share has none
    ],
)
def test_a_raise_that_another_limit_makes_useless_says_which_one(
    search_file: Path, tmp_path: Path, first: tuple[int, int], second: tuple[int, int],
    raised: str, *, is_by_share: bool,
) -> None:  # fmt: skip
    small = with_budget(search_file, 60, "retrain.max_share=0.2")
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    assert kept_within(small, study, *first).is_cut_by_share != is_by_share
    larger = with_budget(search_file, 60, "retrain.max_share=0.2", raised)
    found = kept_within(larger, study, *second)
    assert (found.numbers, found.is_cut_by_share) == ((1,), is_by_share)
    assert cut_text(larger, found).startswith("retrain.max_share=0.2" if is_by_share else "the b")
    assert is_settled(larger, study, study.trials())


def test_finished_trainings_of_the_finalists_count_in_their_share(
    search_file: Path, tmp_path: Path
) -> None:
    small = with_budget(search_file, 60, "retrain.max_share=0.2")
    study = finished(small, tmp_path, [0.5, 0.9, 0.8])
    assert kept_within(small, study, 99, 5).num_seeds == 1  # three trainings of five
    more_epochs = with_budget(search_file, 4000, "retrain.max_share=0.2")
    assert kept_within(more_epochs, study, 99, 5).num_seeds == 1
