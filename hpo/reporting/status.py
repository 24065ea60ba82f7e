"""RunStatus: the progress of a run, shown as text or as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpo.config.schema import PAUSING
from hpo.delivery.forgetting import read_forgetting
from hpo.engine.budget import Budget
from hpo.reporting.beside import beside, beside_rows
from hpo.reporting.extended import extension_rows
from hpo.reporting.health import HealthCard, health_cards, health_rows
from hpo.reporting.rows import (
    MAX_ROWS,
    Rows,
    counts_text,
    front_rows,
    objectives_text,
    verdict_rows,
)
from hpo.reporting.searched import Searched
from hpo.run import Run
from hpo.schedulers.first_rung import FirstRung, first_rung_text, read_first_rungs
from hpo.selection.finalists import comparison_progress
from hpo.selection.selection import objective_values
from hpo.selection.verdict import verdict_values
from hpo.study.trial import TrialStatus, TrialSummary


@dataclass(frozen=True)
class RunStatus:
    """The progress of a run.

    Attributes:
        run: The run, with its trials at the time when the status was read.
        counts: The number of trials by state.
        running: Trials that are running or paused.
        budget: The limits of the search, and what it has taken of each.
        first_rung: The latest first rung that learning curves chose; None: as configured.
        first_rung_text: The first rung as text, with the reason; None: the scheduler has no rungs.
        num_compared: How many of the finalists' trainings have ended, and how many there are;
            None: finalists are not being compared.
        health: The outcomes of the checks, the worst first.
    """

    run: Run
    counts: Counter[TrialStatus]
    running: Sequence[TrialSummary]
    budget: Budget
    first_rung: FirstRung | None
    first_rung_text: str | None
    num_compared: tuple[int, int] | None
    health: Sequence[HealthCard]

    def as_json(self) -> dict[str, Any]:
        """The status as plain values, as `status --json` prints them."""
        study, best = self.run.config.study, self.run.best
        return {
            "study": study.name,
            "num_trials": study.num_trials,
            "counts": dict(self.counts),
            "budget": {
                limit.name: [self.budget.taken(limit), limit.total] for limit in self.budget.limits
            },
            "first_level": self.first_rung and self.first_rung.model_dump(),
            "best": best
            and {"number": best.number, "value": self.run.best_value, "params": best.params},
            "front": [{"number": t.number, **objective_values(t, study)} for t in self.run.front],
            "running": [{"number": t.number, "epoch": t.num_epochs} for t in self.running],
            "winner": self.run.verdict and verdict_values(self.run.verdict),
            "delivered": self.run.is_delivered,
            "delivered_trial": self._delivered_number,
            **beside(self.run.files),
            "extension": read_forgetting(self.run.files),
            "health": [asdict(card) for card in self.health],
        }

    def as_rows(self) -> Rows:
        """The status as names and values, as `status` prints them."""
        rows = {
            "study": f"{self.run.config.study.name} ({self.run.folder.path})",
            "trials": self._trials_text(),
        }
        if self.budget.limits:
            rows["budget"] = self.budget.in_words()
        if self.first_rung_text is not None:
            rows["first decision"] = self.first_rung_text
        rows["best"] = self._best_text()
        rows |= front_rows(self.run.front, self.run.config)
        if self.num_compared is not None:
            done, total = self.num_compared
            rows["finalists"] = f"{done} of {total} trainings on fresh seeds have ended"
        if self.run.verdict is not None:
            rows |= verdict_rows(self.run.verdict)
        rows |= self._running_rows() | {"best model": self._delivered_text()}
        rows |= beside_rows(self.run.files, self.run.config.study.metric)
        rows |= extension_rows(self.run.files)
        return rows | health_rows(self.health)

    def _trials_text(self) -> str:
        num_started = self.counts.total() - self.counts[TrialStatus.INFEASIBLE]
        states = counts_text(+self.counts) or "none"
        return f"{num_started} of {self.run.config.study.num_trials} started: {states}"

    def _best_text(self) -> str:
        best = self.run.best
        if best is None:
            return "none yet"
        text = objectives_text(best, self.run.config, self.run.best_value)
        return f"{text} (trial {best.number})"

    def _running_rows(self) -> Rows:
        may_pause = self.run.config.scheduler.name in PAUSING
        at_work = "running or paused" if may_pause else "running"
        shown, more = self.running[:MAX_ROWS], len(self.running) - MAX_ROWS
        rows = {f"trial {t.number}": f"{at_work}, epoch {t.num_epochs}" for t in shown}
        return rows | ({"": f"and {more} more"} if more > 0 else {})

    def _delivered_text(self) -> str:
        if not self.run.is_delivered:
            return "not yet delivered"
        number = self._delivered_number
        return f"{self.run.folder.best}" + ("" if number is None else f" (trial {number})")

    @property
    def _delivered_number(self) -> int | None:
        """The trial whose model is in best/; None: no model, or its trial was not stored."""
        return self.run.study.metadata.delivered_trial if self.run.is_delivered else None


def read_status(run: Run) -> RunStatus:
    """Reads the present status of a run from its folder and its study."""
    config, study, trials = run.config, run.study, run.trials
    chosen = read_first_rungs(study.metadata.first_levels)
    curves = [trial.curve_to(config.train.max_epochs) for trial in trials]
    searched = Searched.of(config, study, trials, run.verdict)
    return RunStatus(
        run=run,
        counts=Counter(trial.outcome for trial in trials),
        running=[t for t in trials if t.state == TrialStatus.RUNNING],
        budget=Budget.of_study(config, study),
        first_rung=chosen[-1] if chosen else None,
        first_rung_text=first_rung_text(config, chosen, curves),
        num_compared=comparison_progress(config, study, trials),
        health=health_cards(searched),
    )
