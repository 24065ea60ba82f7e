"""The note of a study, as Markdown: what is searched, how far it is, and how it goes on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.dashboard.words import plain
from hpo.engine.budget import Budget
from hpo.engine.ledger import TrialLedger
from hpo.program import command_line
from hpo.reporting.health import health_cards, health_rows
from hpo.reporting.rows import counts_text, objectives_text, verdict_rows
from hpo.reporting.searched import Searched
from hpo.reporting.snapshot import clock_time
from hpo.reporting.words import is_paused
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import first_rung_text, read_first_rungs
from hpo.selection.calibration import Calibration
from hpo.selection.finalists import comparison_progress, read_verdict
from hpo.selection.intervals import margin_by_images
from hpo.selection.selection import best_so_far, pareto_front
from hpo.selection.verdict import SHARES_OF_IMAGES, Verdict
from hpo.study.driver import is_driven
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary

MOST_LISTED: Final = 8
EM_SPACE: Final = "\u2003"
LEAST_SHARE: Final = 0.05  # of a search, from which on its pace tells something


@dataclass(frozen=True)
class SearchState:
    """A search as its study tells it.

    Attributes:
        config: The config of the search.
        study: The study, for its metadata.
        trials: The trials that have started.
        line: Numbers of the paused trials, the one that is resumed first at the front.
        folder: The run's folder; None: it is not known.
        calibration: The surrogate's forecasts against what came; None: not known (yet).
    """

    config: SearchConfig
    study: SearchStudy
    trials: Sequence[TrialSummary]
    line: Sequence[int]
    folder: RunFolder | None
    calibration: Calibration | None = None

    @cached_property
    def verdict(self) -> Verdict | None:
        """The finalists' results; None: they are not known yet."""
        return read_verdict(self.config, self.study, self.trials)

    @cached_property
    def best(self) -> tuple[TrialSummary, float] | None:
        """The best trial so far and its value."""
        return best_so_far(self.trials, self.config)

    @property
    def is_driven(self) -> bool:
        """Whether a search runs: its process does or, on another machine, beat just now."""
        return is_driven(self.study.metadata.driver)


def study_note(state: SearchState) -> str:
    """The note."""
    config = state.config
    rows = _progress_rows(state) | _best_rows(state) | _running_rows(state)
    searched = Searched.of(
        config, state.study, state.trials, state.verdict, calibration=state.calibration
    )
    directions = {"maximize": "largest", "minimize": "smallest"}
    goals = " and ".join(f"{directions[d]} {name}" for name, d in config.study.objectives)
    parts = [
        f"## {plain(config.study.name)}: {goals}",
        _what_runs(state),
        _listing(rows),
        "### Health",
        _listing(health_rows(health_cards(searched))),
        "### What is searched",
        _space_table(state),
        _how_to_go_on(state),
    ]
    return "\n\n".join(part for part in parts if part)


def _listing(rows: Mapping[str, str]) -> str:
    return "\n".join(f"- {plain(name)}: {plain(text)}" for name, text in rows.items())


def study_attributes(state: SearchState) -> dict[str, str]:
    """The attributes that the page shows of a study, in place of those that programs read."""
    config, images = state.config, state.study.metadata.images
    shown = {
        "scheduler": str(config.scheduler.name),
        "sampler": str(config.study.sampler),
        "trains for": f"{config.train.max_epochs} epochs at most",
    }
    if images is not None:
        counts = [f"{images[split]} {split}" for split in ("train", "val", "test")]
        shown["images"] = f"{', '.join(counts)}; {len(images['classes'])} classes"
    return shown


def _what_runs(state: SearchState) -> str:
    config = state.config
    strategy = f"{config.scheduler.name} decides which trials go on"
    if config.study.sampler != "curves":
        strategy += f", {config.study.sampler} draws new ones"
    if state.folder is not None and state.folder.is_complete:
        return f"The search is complete. {strategy.replace('decides', 'decided', 1)}."
    if not state.is_driven:
        return "**No search runs on this study now.**"
    return f"**The search runs**: {strategy}."


def _progress_rows(state: SearchState) -> dict[str, str]:
    config, study, trials = state.config, state.study, state.trials
    counts = Counter("PAUSED" if is_paused(t, config) else t.outcome for t in trials)
    num = len(trials) - counts[TrialStatus.INFEASIBLE]
    budget = Budget.of_study(config, study, ledger=TrialLedger(config.study.objective, trials))
    rows = {"trials": f"{num} of {config.study.num_trials} started: {counts_text(counts)}"}
    if budget.limits:
        rows["budget used"] = budget.in_words()
    rows["searched for"] = clock_time(study.metadata.seconds_searched)
    if state.is_driven and (forecast := _forecast(state, budget)):
        rows["forecast"] = forecast
    progress = comparison_progress(config, study, trials)
    if progress is not None:
        rows["finalists"] = f"{progress[0]} of {progress[1]} trainings on fresh seeds have ended"
    return rows


def _forecast(state: SearchState, budget: Budget) -> str | None:
    """When the trials end, at the pace so far; None: too early to tell."""
    ended = sum(trial.state != TrialStatus.RUNNING for trial in state.trials)
    share = min(1.0, max(ended / state.config.study.num_trials, budget.share_taken))
    seconds = state.study.metadata.seconds_searched
    if share < LEAST_SHARE or not seconds:
        return None
    left_text = clock_time(seconds * (1 - share) / share)
    return f"about {left_text} left for the trials, at the pace so far ({share:.0%} done)"


def _best_rows(state: SearchState) -> dict[str, str]:
    config, trials = state.config, state.trials
    if state.verdict is not None:
        return dict(verdict_rows(state.verdict))
    if config.study.has_several_objectives:
        front = pareto_front(trials, config.study)
        shown = front[:MOST_LISTED]
        return {f"front, trial {t.number}": objectives_text(t, config) for t in shown}
    if state.best is None:
        return {"best so far": "none yet"}
    return {"best so far": _best_text(state, *state.best)}


def _best_text(state: SearchState, trial: TrialSummary, value: float) -> str:
    metric, images = state.config.study.metric, state.study.metadata.images or {}
    text = f"trial {trial.number}, {metric} {value:.4f}"
    num_images = images.get("val")
    if metric in SHARES_OF_IMAGES and num_images:
        margin = margin_by_images(value, num_images)
        text += f" ± {margin:.4f} (95 %, by its {num_images} val images alone)"
    num = sum(bool(trial.curve) for trial in state.trials)
    if num > 1:
        text += f"; the best of {num} single trainings, so rather too good"
    return text


def _running_rows(state: SearchState) -> dict[str, str]:
    config = state.config
    going = [t for t in state.trials if t.state == TrialStatus.RUNNING]
    paused = {t.number: t for t in going if is_paused(t, config)}
    running = [t for t in going if t.number not in paused]
    rows = {}
    if running:
        listed = [f"{t.number} (epoch {t.num_epochs})" for t in running]
        rows["running" if state.is_driven else "interrupted"] = f"trials {_listed(listed)}"
    if paused:
        first = [str(number) for number in state.line if number in paused]
        rows["paused"] = f"{len(paused)} trials"
        if first:
            rows["paused"] += f"; first in line: {_listed(first)}"
    rungs = read_first_rungs(state.study.metadata.first_levels)
    text = first_rung_text(config, rungs, [t.curve_to(config.train.max_epochs) for t in going])
    return rows | ({} if text is None else {"first comparison": text})


def _listed(some: Sequence[str]) -> str:
    more = len(some) - MOST_LISTED
    return ", ".join(some[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _space_table(state: SearchState) -> str:
    name, best = _leader(state)
    default = next((t.params for t in state.trials if t.number == 0), {})
    rows = [
        (path, parameter.describe(), _value(default.get(path)), _value(best.get(path)))
        for path, parameter in state.config.space.items()
    ]
    return _table(("parameter", "range", "default", name), rows)


def _leader(state: SearchState) -> tuple[str, Mapping[str, Any]]:
    """What the best trial is called, and its params: the winner's, once there is one."""
    if state.verdict is not None:
        winner = state.verdict.winner
        return "winner", next(t.params for t in state.trials if t.number == winner)
    return "best so far", {} if state.best is None else state.best[0].params


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _how_to_go_on(state: SearchState) -> str:
    folder = state.folder
    if folder is None:
        return "`--resume` continues an interrupted search, with the command that began it."
    if folder.is_complete:
        return "A larger `study.num_trials` or budget (`--set`) with `--resume` searches on."
    where = ("--output-dir", folder.path.parent)
    resume = command_line("search", folder.search_file, *where, "--resume")
    return f"Ctrl-C ends the search in order. To go on: `{resume}`"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # The page draws cells without a space between them.
    cells = ([f"{plain(cell)}{EM_SPACE}" for cell in row] for row in (header, *rows))
    head, *others = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join([head, "| --- " * len(header) + "|", *others])
