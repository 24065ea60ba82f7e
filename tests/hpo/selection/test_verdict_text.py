import pytest
from verdicts import CLEAR, trainings, verdict_on

from hpo.selection.verdict import judge, with_teacher
from hpo.selection.verdict_text import (
    correction_text,
    epochs_text,
    gain_text,
    mean_text,
    teacher_texts,
)
from sgformer.config import Metric

NOISE: dict[int, list[float | None]] = {7: [0.9, 0.8], 4: [0.8, 0.9], 0: [0.8, 0.88]}


def test_a_clear_gain_is_told_with_its_interval() -> None:
    verdict = verdict_on(CLEAR)
    text = gain_text(verdict)
    assert text.startswith("+0.3150 (+0.2")
    assert text.endswith(" over the default: better than the default")
    assert mean_text(verdict, 7).startswith("val_top1 0.8200 (0.7")
    assert mean_text(verdict, 7).endswith(" on 2 fresh seeds")


def test_a_gain_within_noise_is_told_in_words() -> None:
    text = gain_text(verdict_on(NOISE))
    assert "within noise, the default is as good as far as these seeds can tell" in text


def test_few_images_make_a_gain_noise() -> None:
    values = {3: [0.99, 0.993], 0: [0.98, 0.983]}
    assert "within noise" in gain_text(verdict_on(values, num_val_images=300))
    assert "better than" in gain_text(verdict_on(values, num_val_images=300_000))


def test_a_default_that_wins_is_told_plainly() -> None:
    text = gain_text(verdict_on({3: [0.5, 0.51], 0: [0.9, 0.92]}))
    assert text.startswith(
        "none: the default configuration is the best of 2 finalists; the next one, trial 3, has "
        "-0.4050 (-0."
    )
    alone = judge((0,), (), "val_top1", 300, None)
    assert gain_text(alone) == "none: the default configuration is the best trial"


def test_a_default_that_may_not_win_is_compared_with() -> None:
    values = {3: [0.5, 0.51], 4: [0.4, 0.41], 0: [0.9, 0.92]}
    verdict = judge((3, 4, 0), trainings(values), "val_top1", 10_000, None, default_may_win=False)
    assert verdict is not None
    assert (verdict.winner, verdict.has_default, set(verdict.means)) == (3, True, {3, 4, 0})
    assert gain_text(verdict).startswith("-0.4050 (-0.")
    assert gain_text(verdict).endswith(
        ") over the default: worse than the default, which does not keep to study.constraints"
    )
    alone = trainings({3: [None], 0: [0.9]})
    assert judge((3, 0), alone, "val_top1", 300, None, default_may_win=False) is None


def test_one_seed_is_told_to_tell_nothing_of_noise() -> None:
    verdict = verdict_on({3: [0.9], 0: [0.5]})
    assert gain_text(verdict) == (
        "+0.4000 over the default on one fresh seed, which cannot tell it from noise "
        "(retrain.seeds)"
    )
    assert mean_text(verdict, 3) == "val_top1 0.9000 on one fresh seed"


def test_without_a_default_or_a_comparison_the_gain_is_not_known() -> None:
    assert "not known: the default" in gain_text(verdict_on({3: [0.9, 0.8], 4: [0.5, 0.5]}))
    assert "not known: nothing was compared" in gain_text(None)


@pytest.mark.parametrize(
    ("metric", "fold_ratio", "words"),
    [
        ("val_top1", None, "and other val images, though from all trials the finalists were pick"),
        ("val_loss", 0.25, "over other seeds, and other val images."),
        ("val_loss", None, "over other seeds, but not over other val images"),
    ],
)
def test_what_an_interval_holds_for_is_told(
    metric: Metric, fold_ratio: float | None, words: str
) -> None:
    assert words in correction_text(verdict_on(CLEAR, metric, fold_ratio=fold_ratio))


def test_one_seed_has_no_intervals_to_speak_of() -> None:
    one = {number: values[:1] for number, values in CLEAR.items()}
    assert correction_text(verdict_on(one)).startswith("One fresh seed gives no intervals")


@pytest.mark.parametrize(
    ("best_epoch", "words"),
    [(8, "best at epoch 8 of 8, still getting better"), (7, "best at epoch 7 of 8")],
)
def test_the_length_that_the_curves_support_is_told(best_epoch: int, words: str) -> None:
    verdict = judge((7, 4, 0), trainings(CLEAR, best_epoch), "val_top1", 300, None)
    assert verdict is not None
    assert epochs_text(verdict).startswith(words)
    assert ("still" in epochs_text(verdict)) == ("still" in words)


def test_a_budget_for_one_finalist_is_told_to_be_why_the_gain_is_not_known() -> None:
    cut = judge((7,), (), "val_top1", 300, None, is_cut_to_one=True)
    assert gain_text(cut).startswith("not known: the budget left no room to train a rival and")
    broke = judge((7,), (), "val_top1", 300, None)
    assert gain_text(broke).startswith("not known: the default configuration broke")


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        ([0.70, 0.72], "+0.1100 (+0.0"),
        ([0.92, 0.94], "-0.1100 (-0.1"),
        ([0.81, 0.82], "+0.0050 (-0.0"),
    ],
)
def test_what_a_teacher_adds_is_told_with_its_interval(alone: list[float], said: str) -> None:
    texts = teacher_texts(with_teacher(verdict_on(CLEAR), trainings({7: [*alone]}), 10_000, None))
    assert texts is not None
    without, adds = texts
    assert without.startswith(f"val_top1 {sum(alone) / 2:.4f} (0.")
    assert adds.startswith(said)
    ends = ["better with the teacher", "worse with the teacher", "within noise"]
    assert adds.endswith(ends[["+0.1", "-0.1", "+0.0"].index(said[:4])])


def test_a_winner_without_a_teacher_has_no_such_text() -> None:
    assert teacher_texts(verdict_on(CLEAR)) is None


@pytest.mark.parametrize(
    ("is_by_share", "words"), [(True, "retrain.max_share"), (False, "budget")]
)
@pytest.mark.parametrize("number", [3, 0])
def test_a_finalist_that_was_left_alone_is_told_why(
    number: int, words: str, *, is_by_share: bool
) -> None:
    cut = {"is_cut_to_one": True, "is_cut_by_share": is_by_share}
    for trained in ((), trainings({number: [0.9]})):  # those of a soup, or beside a teacher
        verdict = judge((number,), trained, "val_top1", 300, None, **cut)
        text = gain_text(verdict)
        assert words in text
        assert "resume" in text
        assert text.startswith("not known: " if number else "none: the default configuration is")
