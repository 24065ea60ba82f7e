"""The verdict as text for the terminal and the report."""

from statistics import median
from typing import Final

from hpo.selection.intervals import Estimate
from hpo.selection.verdict import DEFAULT, Verdict

# A training may be too short if its best epoch lies in this last share of its epochs.
LAST_SHARE: Final = 0.1


def mean_text(verdict: Verdict, number: int) -> str:
    """A finalist's mean as text, such as 'val_top1 0.9878 (0.9702 to 1.0000) on 3 fresh seeds'."""
    return _on_seeds(verdict, verdict.means[number])


def teacher_texts(verdict: Verdict) -> tuple[str, str] | None:
    """The winner's mean without its teacher, and what the teacher adds, as text."""
    if verdict.teacher is None:
        return None
    gain = verdict.teacher.gain
    said = "better with the teacher" if gain.mean > 0 else "worse with the teacher"
    if gain.margin is None or gain.is_within_noise:
        said = "within noise"
    return _on_seeds(verdict, verdict.teacher.alone), f"{signed_text(gain)}: {said}"


def _on_seeds(verdict: Verdict, mean: Estimate) -> str:
    num_seeds = len(verdict.trainings)
    seeds = "one fresh seed" if num_seeds == 1 else f"{num_seeds} fresh seeds"
    text = f"{verdict.metric} {mean.mean:.4f}"
    if mean.low is not None and mean.high is not None:
        text += f" ({mean.low:.4f} to {mean.high:.4f})"
    return f"{text} on {seeds}"


def gain_text(verdict: Verdict | None) -> str:
    """The winner's gain over the default as text, and whether the gain exceeds noise."""
    if verdict is None:
        return "not known: nothing was compared on fresh seeds (retrain.seeds)"
    if verdict.winner == DEFAULT:
        return _no_gain_text(verdict)
    if not verdict.has_default:
        return f"not known: {_why_no_default(verdict)}"
    gain = verdict.gains[verdict.winner]
    if gain.margin is None:
        return (
            f"{gain.mean:+.4f} over the default on one fresh seed, which cannot tell it from "
            f"noise ({_of_seeds(verdict)})"
        )
    text = f"{signed_text(gain)} over the default: "
    if gain.is_within_noise:
        return f"{text}within noise, the default is as good as far as these seeds can tell"
    if gain.mean < 0:
        return f"{text}worse than the default, which does not keep to study.constraints"
    return f"{text}better than the default"


def _of_seeds(verdict: Verdict) -> str:
    """The settings that decide on how many seeds finalists are compared."""
    return "retrain.seeds, retrain.max_share" if verdict.is_cut_by_share else "retrain.seeds"


def _why_no_default(verdict: Verdict) -> str:
    """The reason why the winner was not compared with the default, as text."""
    if verdict.is_cut_to_one:
        return _why_cut(verdict)
    return "the default configuration broke, diverged, or was not trained"


def _why_cut(verdict: Verdict) -> str:
    """Why nothing was compared, and what to do, as text."""
    if verdict.is_cut_by_share:
        return (
            "to train a rival and the default on a fresh seed each costs more than "
            "retrain.max_share of the search; resume with a larger one, or null"
        )
    return (
        "the budget left no room to train a rival and the default on a fresh seed each; raise the "
        "budget and resume"
    )


def _no_gain_text(verdict: Verdict) -> str:
    """If the default wins: the text with the gain of the next best finalist."""
    if verdict.is_cut_to_one:
        return f"none: the default configuration is expected to be the best; {_why_cut(verdict)}"
    if not verdict.gains:
        return "none: the default configuration is the best trial"
    closest = max(verdict.gains, key=lambda number: verdict.gains[number].mean)
    return (
        f"none: the default configuration is the best of {len(verdict.means)} finalists; the next "
        f"one, trial {closest}, has {signed_text(verdict.gains[closest])}"
    )


def signed_text(gain: Estimate) -> str:
    """A gain with its interval as text, such as '+0.0045 (-0.0130 to +0.0220)'."""
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.4f}"
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def correction_text(verdict: Verdict) -> str:
    """The text that says for which seeds and images the intervals hold."""
    if len(verdict.trainings) < 2:
        return f"One fresh seed gives no intervals ({_of_seeds(verdict)})."
    images = "and other val images" if verdict.covers_images else "but not over other val images"
    if verdict.covers_images and verdict.picked_on_images:
        images += ", though from all trials the finalists were picked by these same ones"
    return (
        "Intervals hold with 95 % for all finalists at once, so also for the one picked; over "
        f"other seeds, {images}."
    )


def epochs_text(verdict: Verdict) -> str:
    """The median best epoch of the winner's trainings, and whether longer ones may be better."""
    best = [t.best_epoch for t in verdict.trainings if t.best_epoch is not None]
    length = verdict.trainings[0].max_epochs
    text = f"best at epoch {median(best):g} of {length}"
    if all(epoch > (1 - LAST_SHARE) * length for epoch in best):
        text += ", still getting better at the end: retrain.max_epochs may go further"
    return text
