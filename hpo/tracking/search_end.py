"""SearchEnd: how a search ended, as its followers are told: one JSON, or variables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from hpo.selection.verdict_text import gain_text

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.run import Run
    from hpo.run_folder import RunFolder
    from hpo.selection.verdict import Verdict

VERSION: Final = 1  # of the JSON; fields may be added, and a change of a field raises it
VARIABLE: Final = "HPO_END_"
State = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class SearchEnd:
    """How a search ended.

    Attributes:
        study: The name of the study.
        state: done, failed or interrupted.
        error: Why it failed or was interrupted, in words; None: it is done.
        run: The run's folder.
        metric: The metric that trials are compared by.
        best_trial: The winner, or while there is none the best trial so far; None: there is none.
        best_value: The winner's mean on fresh seeds, else the best value; None: there is none.
        gain: The winner's gain over the default, positive if better; None: not known.
        gain_low: The lower end of the gain's interval; None: there is no interval.
        gain_high: Its upper end.
        gain_text: The gain in words.
        trials: How many trials there are, by state.
        seconds: How long was searched, in seconds, all continuations together.
        best_folder: The folder of the delivered model; None: none is delivered.
        report: The path of report.html; None: there is none yet.
    """

    study: str
    state: State
    error: str | None
    run: str
    metric: str
    best_trial: int | None = None
    best_value: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    gain_text: str | None = None
    trials: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    best_folder: str | None = None
    report: str | None = None

    @classmethod
    def of(cls, run: "Run", state: State = "done", error: str | None = None) -> Self:
        """How the search of a run ended; reads the run's study.

        Args:
            run: The run.
            state: done, failed or interrupted.
            error: Why it failed or was interrupted.
        """
        verdict, best = run.verdict, run.best
        values = _values_of(verdict)
        if not values and best is not None:
            values = {"best_trial": best.number, "best_value": run.best_value}
        return cls(
            **_names(run.config, run.folder, state, error),
            **values,
            trials=Counter(str(trial.outcome) for trial in run.trials),
            seconds=run.study.metadata.seconds_searched,
            best_folder=str(run.folder.best.absolute()) if run.is_delivered else None,
            report=str(run.folder.report.absolute()) if run.folder.report.exists() else None,
        )

    @classmethod
    def without_study(
        cls, config: "SearchConfig", folder: "RunFolder", state: State, error: str | None
    ) -> Self:
        """How a search ended whose study cannot be read, as when its database is away."""
        return cls(**_names(config, folder, state, error))

    @property
    def text(self) -> str:
        """The end in one line, which chats like Slack show."""
        line = f"search {self.study}: {self.state}"
        if self.best_value is not None:
            line += f", {self.metric} {self.best_value:.4f} (trial {self.best_trial})"
        if self.gain_text is not None:
            line += f", gain {self.gain_text}"
        return line if self.error is None else f"{line}; {self.error}"

    def as_json(self) -> dict[str, Any]:
        """The end as plain values, as `on_end` and `webhook` get it."""
        values = {**vars(self), "trials": dict(self.trials)}
        return {"version": VERSION, "text": self.text, **values}

    def as_variables(self) -> dict[str, str]:
        """The end as environment variables; what is not known is an empty text."""
        plain = {k: v for k, v in self.as_json().items() if not isinstance(v, dict)}
        # A text with a NUL, which no variable may hold, could come from an error's message.
        return {
            VARIABLE + name.upper(): "" if value is None else str(value).replace("\0", "")
            for name, value in plain.items()
        }


def _names(
    config: "SearchConfig", folder: "RunFolder", state: State, error: str | None
) -> dict[str, Any]:
    study, path = config.study, str(folder.path.absolute())
    return {
        "study": study.name, "state": state, "error": error, "run": path, "metric": study.metric,
    }  # fmt: skip


def _values_of(verdict: "Verdict | None") -> dict[str, Any]:
    """The winner, its mean and its gain; empty where nothing was compared."""
    if verdict is None or verdict.winner not in verdict.means:
        return {}
    gain = verdict.gains.get(verdict.winner)
    told = (
        {} if gain is None else {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    )
    return {
        "best_trial": verdict.winner,
        "best_value": verdict.means[verdict.winner].mean,
        "gain_text": gain_text(verdict),
        **told,
    }
