"""The summary: what was searched and what came of it, for a reader who knows no search."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from hpo.config.search_space import CategoricalParameter
from hpo.engine.budget import SECONDS_AN_HOUR, Budget
from hpo.engine.ledger import Taken
from hpo.reporting.health import Grade
from hpo.reporting.leaderboard import format_value
from hpo.reporting.page.parts import percent
from hpo.reporting.page.reported import Reported
from hpo.reporting.rows import objectives_text
from hpo.schedulers.first_rung import first_rung_text, read_first_rungs
from hpo.selection.intervals import Estimate, margin_by_images
from hpo.selection.selection import objective_values, pareto_front
from hpo.selection.verdict import DEFAULT, SHARES_OF_IMAGES
from hpo.selection.verdict_text import correction_text, gain_text, mean_text
from hpo.study.trial import TrialStatus, num_counted
from sgformer.intervals import share_interval

GOALS: Final = {
    "val_top1": "the largest share of val images that are classified correctly (val_top1)",
    "val_top5": "the largest share of val images whose class is among the first five (val_top5)",
    "val_macro_f1": "the largest mean of the classes' F1 scores on val (val_macro_f1)",
    "val_loss": "the smallest loss on val (val_loss)",
}
MOST_NAMED: Final = 6
MOST_REMEDIES: Final = 3
MINUTE: Final = 60.0


def key_figures(found: Reported) -> Iterator[tuple[str, str, str]]:
    """Name, text and a word more of the figures that matter most; none without a winner."""
    winner, verdict, study = found.winner, found.verdict, found.config.study
    if winner is None:
        return
    word = "winner" if verdict is not None or found.run.is_delivered else "best so far"
    values = objective_values(winner, study)
    values[study.metric] = found.value(winner)
    told = ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
    yield word, f"trial {winner.number}", f"{told} as a trial"
    for split in ("test", "val"):
        if split in found.metrics:
            of = found.other_delivered
            whose = "retrained" if of is None else f"of trial {of}, which is in best/"
            low, high = _interval(found, split)
            yield (
                f"{split} top-1, {whose}",
                percent(found.metrics[split]["top1"], 1),
                (f"95 %: {percent(low, 1)} to {percent(high, 1)}" if low < high else ""),
            )
    gain = None if verdict is None else verdict.gains.get(verdict.winner)
    if gain is not None:
        yield "gain over the default", f"{gain.mean:+.4f}", _gain(gain)
    if verdict is not None and verdict.teacher is not None:
        adds = verdict.teacher.gain
        yield "its teacher adds", f"{adds.mean:+.4f}", _gain(adds)
    default = next((t for t in found.trials if t.number == DEFAULT), None)
    if default is not None and (value := found.value(default)) is not None:
        yield f"the default's {study.metric}", format_value(value), "as a trial"
    yield "cost", _hours(_total(found).gpu_seconds), f"{_unit(found)}, all trainings"


def summary(found: Reported, questions: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Questions with their answers; `questions`: those to answer, None: all."""
    answers: dict[str, Callable[[Reported], str]] = {
        "What was searched": _searched,
        "How": _strategy,
        "Why it ended": _end,
        "The winner": _winner,
        "How sure we are": _certainty,
        "What it cost": _cost,
        "What to do next": _next,
    }
    asked = answers if questions is None else questions
    return [(question, answer(found)) for question, answer in answers.items() if question in asked]


def counts_text(found: Reported) -> str:
    """Numbers of trials by state, such as '9 trials (8 complete, 1 pruned)'."""
    states = [found.state(trial) for trial in found.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    num = len(states)
    return f"{num} trial{'s' * (num != 1)} ({counts or 'none yet'})"


def _searched(found: Reported) -> str:
    config, images = found.config, found.study.metadata.images
    names = [path.rpartition(".")[2].replace("_", " ") for path in config.space]
    more = len(names) - MOST_NAMED
    listed = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    goal = GOALS.get(config.study.metric, config.study.metric)
    costs = [name for name, _ in config.study.objectives if name != config.study.metric]
    goal += "".join(f", and {direction} {name}" for name, direction in config.study.objectives
                    if name in costs)  # fmt: skip
    bounds = "".join(f"; {constraint}" for constraint in config.study.constraints)
    text = (
        f"{len(names)} setting{'s' * (len(names) != 1)} of {_models(found)} ({listed}), for "
        f"{goal}{bounds}. "
    )
    if images is not None:
        text += (
            f"{len(images['classes']):,} classes; {images['train']:,} images to train on, "
            f"{images['val']:,} to choose by (val), {images['test'] or 0:,} to judge by (test). "
        )
    return f"{text}{counts_text(found)}{_origin(found)}."


def _models(found: Reported) -> str:
    choices = found.config.space.get("model.name")
    if isinstance(choices, CategoricalParameter):
        return f"{len(choices.choices)} models"
    return str(found.config.train.model.name)


def _origin(found: Reported) -> str:
    """The text about trials carried over from and to other studies; empty if there are none."""
    text, source = "", found.study.metadata.carried_from
    if source is not None:
        text = (
            f"; {source['num_carried_over']} of the {source['num_trials']} trials of study "
            f"{source['study']} were carried over, when the space changed"
        )
    if found.study.metadata.carried_to is not None:
        text += f"; goes on as study {found.study.metadata.carried_to}, in a changed space"
    return text


def _strategy(found: Reported) -> str:
    config = found.config
    text = (
        f"Each trial trains one configuration for at most {config.train.max_epochs} epochs; "
        f"scheduler {config.scheduler.name} decides which go on"
    )
    if config.study.sampler != "curves":
        text += f", sampler {config.study.sampler} proposes new ones"
    chosen = read_first_rungs(found.study.metadata.first_levels)
    curves = [trial.curve_to(config.train.max_epochs) for trial in found.trials]
    rung = first_rung_text(config, chosen, curves)
    return f"{text}." if rung is None else f"{text}. First decision at {rung}."


def _end(found: Reported) -> str:
    study, trials = found.config.study, found.trials
    if not trials:
        return "It has not begun: no trial has started."
    going = sum(trial.state == TrialStatus.RUNNING for trial in trials)
    if going:
        what = "trials are" if going > 1 else "trial is"
        return (
            f"It has not ended: {going} {what} running, paused or interrupted. A search that was "
            "interrupted goes on with --resume."
        )
    if num_counted(trials) >= study.num_trials:
        return f"All {study.num_trials} trials that were planned have been made."
    if found.study.metadata.limits_reached is not None:
        used = Budget.of_study(found.config, found.study, ledger=found.ledger).in_words()
        return f"Its budget was used up: {used or 'no limit was set'}."
    return (
        f"{num_counted(trials)} of {study.num_trials} planned trials have been made. It goes on "
        "with --resume."
    )


def _winner(found: Reported) -> str:
    return " ".join(_on_the_winner(found))


def _on_the_winner(found: Reported) -> Iterator[str]:
    winner, verdict = found.winner, found.verdict
    if winner is None:
        yield "None: no trial has run to its end yet."
        return
    if verdict is not None and winner.number in verdict.means:
        is_default = " (the default configuration)" if winner.number == DEFAULT else ""
        yield f"Trial {winner.number}{is_default}: {mean_text(verdict, winner.number)}."
    elif found.config.study.has_several_objectives:
        num = len(pareto_front(found.trials, found.config.study))
        told = objectives_text(winner, found.config, found.value(winner))
        yield (
            f"Trial {winner.number}: {told}, selected "
            f"({found.config.study.select}) from a front of {num}."
        )
    else:
        told = objectives_text(winner, found.config, found.value(winner))
        yield f"Trial {winner.number} leads: {told}."
    split, metrics = found.evaluated
    if split:
        low, high = _interval(found, split)
        of = found.other_delivered
        whose = "Its model" if of is None else f"The model in best/, which is trial {of}'s,"
        yield (
            f"{whose} classifies {percent(metrics['top1'], 1)} of the {split} images correctly"
            + (f" (95 %: {percent(low, 1)} to {percent(high, 1)})." if low < high else ".")
        )


def _certainty(found: Reported) -> str:
    verdict, study = found.verdict, found.config.study
    if verdict is not None:
        text = f"Gain: {gain_text(verdict)}."
        return f"{text} {correction_text(verdict)}" if verdict.means else text
    num = sum(bool(trial.curve) for trial in found.trials)
    if not num:
        return "Nothing is known yet."
    text = (
        f"Not very: nothing was compared on fresh seeds, and the best of {num} single trainings "
        "looks better than it is"
    )
    num_images = (found.study.metadata.images or {}).get("val")
    best = None if found.winner is None else found.value(found.winner)
    if study.metric in SHARES_OF_IMAGES and num_images and best is not None:
        margin = margin_by_images(best, num_images)
        text += f"; the {num_images:,} val images alone make ± {margin:.4f}"
    return f"{text}."


def _cost(found: Reported) -> str:
    trials, after = _sum(list(found.taken_by_trials.values())), _sum(found.taken_after)
    if not trials.epochs:
        return "Nothing yet."
    text = (
        f"{_hours(trials.gpu_seconds)} of {_unit(found)} for {trials.epochs:,.0f} epochs of trials"
    )
    if after.seconds:
        text += f", {_hours(after.gpu_seconds)} for the trainings after them"
    waited = found.study.metadata.seconds_searched
    return f"{text}; {_hours(waited)} passed." if waited else f"{text}."


def _next(found: Reported) -> str:
    return " ".join(_next_steps(found))


def _next_steps(found: Reported) -> Iterator[str]:
    if not found.run.is_delivered:
        yield "Let the search go on, or continue it with --resume (see below)."
    for card in [one for one in found.health if one.grade != Grade.PASS][:MOST_REMEDIES]:
        yield f"{card.name.capitalize()}: {card.remedy}."
    if found.run.is_delivered:
        model = found.run.best / "model.onnx"
        yield f"The model is {model}; MODEL_CARD.md beside it says how to use it."


def _gain(gain: Estimate) -> str:
    """A gain's interval, and whether it exceeds noise."""
    if gain.low is None or gain.high is None:
        return "on one seed, so not told from noise"
    whether = "within noise" if gain.is_within_noise else "more than noise"
    return f"95 %: {gain.low:+.4f} to {gain.high:+.4f}, {whether}"


def _interval(found: Reported, split: str) -> tuple[float, float]:
    """The 95 % interval of the delivered model's top-1; twice the value: not known."""
    metrics = found.metrics[split]
    top1, num = metrics["top1"], metrics.get("num_images")
    return share_interval(top1, num) if num else (top1, top1)


def _total(found: Reported) -> Taken:
    return _sum([*found.taken_by_trials.values(), *found.taken_after])


def _sum(some: Sequence[Taken]) -> Taken:
    return Taken(
        sum(one.epochs for one in some),
        sum(one.seconds for one in some),
        sum(one.gpu_seconds for one in some),
    )


def _unit(found: Reported) -> str:
    return "GPU time" if found.has_gpus else "training time on CPUs"


def _hours(seconds: float) -> str:
    if seconds >= 2 * SECONDS_AN_HOUR:
        return f"{seconds / SECONDS_AN_HOUR:,.1f} hours"
    return f"{seconds / MINUTE:.1f} minutes" if seconds >= 2 * MINUTE else f"{seconds:.0f} seconds"
