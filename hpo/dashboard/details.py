"""What the page is told of a study: all of it once, and then what has changed."""

import gzip
import json
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._pareto_front import get_pareto_front_trials
from optuna_dashboard._serializer import serialize_attrs, serialize_study_detail
from optuna_dashboard._storage import get_study
from pydantic import ValidationError

from hpo.config.schema import SearchConfig
from hpo.dashboard.figures import StudyFigures
from hpo.dashboard.files import RunFiles
from hpo.dashboard.study_note import SearchState, study_attributes, study_note
from hpo.dashboard.trials import ToldTrial, TrialTexts
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy

SECONDS_BETWEEN_READS: Final = 1.0
FAST: Final = 1  # of gzip: a fifth of the time of its default, for a tenth more bytes
SEARCH_CONFIG: Final = "search_config"


class StudyDetails:
    """Tells pages of a study; a page that names a version is told what has changed since.

    Args:
        storage: Optuna's storage.
        study_id: The study's id there.
        folder: The folder of the study's run; None: not known.
        knows_paused: Whether the page has a word for paused trials.

    Attributes:
        files: The files of the study's run.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        folder: RunFolder | None,
        *,
        knows_paused: bool,
    ) -> None:
        self._storage, self._id, self._folder = storage, study_id, folder
        self.files = RunFiles(study_id, folder)
        self._texts = TrialTexts(study_id, self.files, knows_paused=knows_paused)
        self._lock, self._next_read = threading.Lock(), 0.0
        self._server = secrets.token_hex(4)  # another server's versions mean nothing here
        self._version = 0
        self._trials: list[ToldTrial] = []
        self._best: list[int] = []
        self._detail: dict[str, Any] = {}
        self._compressed: tuple[str, bytes] = ("", b"")
        self._config: tuple[Any, SearchConfig | None] = (None, None)
        self._figures = StudyFigures()
        self._plots: list[dict[str, str]] = []
        self._version_of_plots = 0

    def forget(self) -> None:
        """Has the next answer read the study anew: somebody has changed it."""
        self._next_read = 0.0

    def changes(self, since: str) -> tuple[str, bytes]:
        """A tag that changes with the answer, and what has changed since a version, by gzip.

        Args:
            since: The version that the page has; "", or one of another server: all is told.

        Raises:
            KeyError: There is no such study.
        """
        with self._lock:
            self._read()
            known = self._known(since)
            tag = f"{self._server}-{self._version}-{known}"
            if self._compressed[0] != tag:
                content = gzip.compress(self._changes_since(known).encode(), FAST, mtime=0)
                self._compressed = (tag, content)
            return self._compressed

    def whole(self, after: int) -> dict[str, Any]:
        """The study as optuna-dashboard's API tells it, with its trials from `after` on.

        Raises:
            KeyError: There is no such study.
        """
        with self._lock:
            self._read()
            trials = [self._texts.expanded(trial.text) for trial in self._trials]
            best = [trials[number] for number in self._best]
            detail = {**self._detail, "plotly_graph_objects": self._plots}
            return {**detail, "trials": trials[after:], "best_trials": best}

    def _known(self, since: str) -> int:
        """The number of a version that a page has; 0: it has none of this server's."""
        server, _, number = since.partition("-")
        is_ours = server == self._server and number.isdecimal() and number.isascii()
        return min(int(number), self._version) if is_ours else 0

    def _changes_since(self, known: int) -> str:
        head = {
            **self._detail,
            "version": f"{self._server}-{self._version}",
            "is_whole": known == 0,
            "best_trials": self._best,
            "distributions": self._texts.distributions,
        }
        if self._version_of_plots > known:
            head["plotly_graph_objects"] = self._plots
        changed = ",".join(trial.text for trial in self._trials if trial.version > known)
        return f'{json.dumps(head)[:-1]},"trials":[{changed}]}}'

    def _read(self) -> None:
        """Reads the study, at most once a second."""
        if time.monotonic() < self._next_read:
            return
        study = get_study(self._storage, self._id)
        if study is None:
            raise KeyError(self._id)
        found = self._storage.get_all_trials(self._id, deepcopy=False)
        config = self._config_of(study.user_attrs.get(SEARCH_CONFIG))
        version = self._version + 1
        stored = _stored_by_trial(study.system_attrs)
        has_news = self._update(found, stored, config, study.user_attrs.get("line", ()), version)
        if has_news:
            self._best = _best_of(found, study.directions)
        detail = self._detail_of(study, config, has_news=has_news)
        plots = detail.pop("plotly_graph_objects")
        if has_news or plots != self._plots or detail != self._detail:
            if plots != self._plots:
                self._plots, self._version_of_plots = plots, version
            self._detail, self._version = detail, version
        self._next_read = time.monotonic() + SECONDS_BETWEEN_READS

    def _update(
        self,
        found: Sequence[FrozenTrial],
        stored: Mapping[int, Mapping[str, Any]],
        config: SearchConfig | None,
        line: Sequence[int],
        version: int,
    ) -> bool:
        """Writes the trials that are new or may have changed; returns whether any has."""
        has_news = False
        for i, trial in enumerate(found):
            told = self._trials[i] if i < len(self._trials) else None
            about = stored.get(trial._trial_id, {})
            if told is not None and told.is_final and told.stored == about:
                continue
            new = self._texts.tell(trial, about, config, line, version)
            if told is None:
                self._trials.append(new)
            elif told.text != new.text:
                self._trials[i] = new
            has_news = has_news or told is None or told.text != new.text
        return has_news

    def _config_of(self, values: Any) -> SearchConfig | None:
        """The config of the study's search, read anew where it has changed."""
        if values != self._config[0]:
            try:
                self._config = (values, SearchConfig.model_validate(values))
            except ValidationError:  # of another version of this program
                self._config = (values, None)
        return self._config[1]

    def _detail_of(
        self, study: Any, config: SearchConfig | None, *, has_news: bool
    ) -> dict[str, Any]:
        """All but the trials, as optuna-dashboard tells it, with our words."""
        plots = get_plotly_graph_objects(study.system_attrs)
        detail: dict[str, Any] = serialize_study_detail(
            study, [], [], *self._texts.in_common, plots, []
        )
        if config is None:
            return detail
        optuna_study = optuna.load_study(study_name=study.study_name, storage=self._storage)
        search = SearchStudy(optuna_study, self._storage, config.study, config.space)
        search.metadata = search.metadata.as_of(study.user_attrs)
        trials = [told.summary for told in self._trials if told.summary is not None]
        line = study.user_attrs.get("line", ())
        calibration = self._figures.calibration
        state = SearchState(config, search, trials, line, self._folder, calibration)
        detail["user_attrs"] = serialize_attrs(study_attributes(state))
        if not detail["note"]["body"]:
            detail["note"]["body"] = study_note(state)
        figures = self._figures.latest(state, has_news=has_news)
        detail["plotly_graph_objects"] += [
            {"id": name, "graph_object": figure} for name, figure in figures.items()
        ]
        detail["artifacts"] += [file.as_artifact() for file in self.files.of_the_study()]
        return detail


def _stored_by_trial(attributes: Mapping[str, Any]) -> Mapping[int, Mapping[str, Any]]:
    """What a study's own attributes say of each trial, by its id: notes, files of old versions.

    Source: optuna-dashboard 0.21, dashboard:ID:note_... and dashboard:artifacts:ID:...
    """
    by_trial: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, value in attributes.items():
        place, *rest = key.split(":")
        number = rest[1] if rest[:1] == ["artifacts"] and len(rest) > 1 else (rest or [""])[0]
        if place == "dashboard" and number.isdecimal():
            by_trial[int(number)][key] = value
    return by_trial


def _best_of(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[int]:
    """Numbers of the best complete trials, or of the Pareto front."""
    if len(directions) > 1:
        return [t.number for t in get_pareto_front_trials(list(trials), list(directions))]
    sign = 1 if directions[0] == StudyDirection.MAXIMIZE else -1
    able = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    feasible = [t for t in able if all(value <= 0 for value in t.constraints.values())] or able
    best = max(feasible, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)
    return [] if best is None else [best.number]
