"""A study's trials as the page is told of them."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._inmemory_cache import _CachedExtraStudyProperty
from optuna_dashboard._serializer import serialize_distribution, serialize_frozen_trial

from hpo.config.schema import SearchConfig
from hpo.dashboard.files import RunFiles
from hpo.dashboard.words import attributes_of, shown_state, trial_note
from hpo.study.frozen import summary_of
from hpo.study.trial import TrialSummary

Distributions = Mapping[str, BaseDistribution]


@dataclass
class ToldTrial:
    """A trial as pages were last told of it.

    Attributes:
        text: The trial as JSON; its params have numbers in place of their distributions.
        version: The study's version of which the text is.
        is_final: Whether the trial has ended.
        stored: What the study's own attributes say of the trial, such as its note.
        summary: The trial as ours; None: it waits, or this program did not make the study.
    """

    text: str
    version: int
    is_final: bool
    stored: Mapping[str, Any]
    summary: TrialSummary | None


class TrialTexts:
    """Writes trials as JSON, and keeps what they have in common.

    Args:
        study_id: The study's id in the storage.
        files: The files of the study's run.
        knows_paused: Whether the page has a word for paused trials.

    Attributes:
        distributions: The distributions of all params, as JSON has them.
    """

    def __init__(self, study_id: int, files: RunFiles, *, knows_paused: bool) -> None:
        self._study_id, self._files, self._knows_paused = study_id, files, knows_paused
        self.distributions: list[dict[str, Any]] = []
        self._numbers: dict[str, list[tuple[BaseDistribution, int]]] = {}
        self._spaces: list[Distributions] = []
        self._seen = _CachedExtraStudyProperty()
        self._attributes: dict[str, bool] = {}

    @property
    def in_common(self) -> tuple[Any, Any, Any, bool]:
        """Intersection and union of the spaces; attributes, and whether they sort; any curves."""
        attributes = list(self._attributes.items())
        seen = self._seen
        spaces = (seen.intersection_search_space, seen.union_search_space)
        return (*spaces, attributes, seen.has_intermediate_values)

    def tell(
        self,
        trial: FrozenTrial,
        stored: Mapping[str, Any],
        config: SearchConfig | None,
        line: Sequence[int],
        version: int,
    ) -> ToldTrial:
        """Writes a trial.

        Args:
            trial: Optuna's trial.
            stored: What the study's own attributes say of the trial.
            config: The config of its search; None: this program did not make the study.
            line: Numbers of the paused trials, the one that is resumed first at the front.
            version: The study's version.
        """
        self._note(trial)
        shown = copy.copy(trial)
        shown.distributions = {}  # written once for all trials
        summary = None
        if config is not None and trial.state != TrialState.WAITING:
            summary = summary_of(trial, config.study)
            shown.user_attrs = attributes_of(summary, config, line)
        self._note_attributes(shown.user_attrs)
        values = serialize_frozen_trial(self._study_id, shown, stored)
        values["params"] = self._params(trial)
        if config is not None and summary is not None:
            self._add_words(values, summary, config, line)
        text = json.dumps(values, separators=(",", ":"))
        return ToldTrial(text, version, trial.state.is_finished(), stored, summary)

    def expanded(self, text: str) -> dict[str, Any]:
        """A trial as optuna-dashboard writes it, from its text."""
        values: dict[str, Any] = json.loads(text)
        for param in values["params"]:
            param["distribution"] = self.distributions[param["distribution"]]
        return values

    def _add_words(
        self,
        values: dict[str, Any],
        trial: TrialSummary,
        config: SearchConfig,
        line: Sequence[int],
    ) -> None:
        if self._knows_paused:
            values["state"] = shown_state(trial, config)
        if not values["note"]["body"]:
            values["note"]["body"] = trial_note(trial, config, line)
        files = self._files.of_a_trial(trial.number, trial.attributes)
        values["artifacts"] += [file.as_artifact() for file in files]

    def _params(self, trial: FrozenTrial) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "param_internal_value": distribution.to_internal_repr(trial.params[name]),
                "param_external_value": str(trial.params[name]),
                "param_external_pytyp": str(type(trial.params[name])),
                "distribution": self._number_of(name, distribution),
            }
            for name, distribution in trial.distributions.items()
        ]

    def _number_of(self, name: str, distribution: BaseDistribution) -> int:
        known = self._numbers.setdefault(name, [])
        for one, number in known:
            if one == distribution:
                return number
        known.append((distribution, len(self.distributions)))
        self.distributions.append(serialize_distribution(distribution))
        return known[-1][1]

    def _note(self, trial: FrozenTrial) -> None:
        """Notes whether the trial has a curve, and its space, which most have in common."""
        if trial.state == TrialState.FAIL:
            return
        self._seen._update_intermediate_values(trial)
        if trial.distributions not in self._spaces:
            self._spaces.append(trial.distributions)
            self._seen._update_search_space(trial)

    def _note_attributes(self, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            self._attributes[name] = self._attributes.get(name, True) and is_number
