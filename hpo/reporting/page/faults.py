"""What went wrong: failures by cause, and findings from learning curves, each with its trials."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from hpo.reporting.page.parts import Table, TrialLinks
from hpo.reporting.page.reported import Reported
from hpo.reporting.words import cause_of
from hpo.study.trial import TrialStatus

MOST_TRIALS: Final = 20  # of a cause or a finding
MOST_CAUSES: Final = 30


def failures(found: Reported) -> Table | None:
    """The table of causes, the most frequent first; None: no trial has broken."""
    by_cause: dict[str, list[int]] = defaultdict(list)
    for trial in found.trials:
        if trial.state == TrialStatus.FAIL:
            by_cause[cause_of(trial)].append(trial.number)
    if not by_cause:
        return None
    most_first = sorted(by_cause.items(), key=lambda item: -len(item[1]))
    rows = [(cause, str(len(of)), _links(of)) for cause, of in most_first[:MOST_CAUSES]]
    return Table(("cause", "trials", "which"), tuple(rows))


def findings(found: Reported, ranking: Sequence[int]) -> Table | None:
    """The table of findings from learning curves, the most frequent first; None: there are none.

    Args:
        found: The search.
        ranking: Numbers of the trials, the best first.
    """
    by_tag: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    by_number = {trial.number: trial for trial in found.trials}
    for number in ranking:
        for finding in by_number[number].attributes.get("diagnosis", ()):
            by_tag[finding["tag"]].append((number, finding))
    if not by_tag:
        return None
    rows = []
    for tag, of_trials in sorted(by_tag.items(), key=lambda item: -len(item[1])):
        first, finding = of_trials[0]
        links = _links([number for number, _ in of_trials])
        rows.append((tag, links, f"trial {first}: {finding['evidence']}", finding["remedy"]))
    return Table(("finding", "trials", "such as", "remedy"), tuple(rows))


def _links(numbers: Sequence[int]) -> TrialLinks:
    return TrialLinks(tuple(numbers[:MOST_TRIALS]), max(0, len(numbers) - MOST_TRIALS))
