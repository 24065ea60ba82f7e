"""The documents that commands print with --json, by command; docs/json.md is made of them."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from hpo.cli.documents.images import Checked, Proposed
from hpo.cli.documents.models import Benchmarked, Evaluated, Predicted
from hpo.cli.documents.runs import Job, Plan, Replayed, Report, Status, Watched

# What a command prints: how many of which document.
ONE, LIST, LINES = "", "A list of these.", "One of these on each change, a line each."
DOCUMENTS: Final[Mapping[str, tuple[str, type[BaseModel]]]] = {
    "status": (ONE, Status),
    "watch": (LINES, Watched),
    "report": (ONE, Report),
    "simulate": (ONE, Replayed),
    "search --dry-run": (ONE, Plan),
    "data check": (ONE, Checked),
    "init": (ONE, Proposed),
    "evaluate": (ONE, Evaluated),
    "predict": (LIST, Predicted),
    "benchmark": (ONE, Benchmarked),
    "jobs list": (LIST, Job),
    "jobs status": (ONE, Job),
}
