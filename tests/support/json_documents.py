"""Compares what commands print with --json with the documents of docs/json.md."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from hpo.cli.documents.commands import DOCUMENTS, LINES, LIST


def check_json(arguments: Sequence[object], out: str) -> None:
    """Checks the output of a command, if it was called with --json, and printed any."""
    words = [str(argument) for argument in arguments]
    if "--json" not in words or not out.strip():
        return
    named = [name for name in DOCUMENTS if name.split()[0] == words[0]]
    if len(named) > 1:
        named = [name for name in named if name.split()[1] == words[1]]
    how_many, document = DOCUMENTS[named[0]]
    if how_many == LINES:
        for line in out.splitlines():
            document.model_validate(json.loads(line))
        return
    kind: TypeAdapter[Any] = TypeAdapter(list[document] if how_many == LIST else document)
    kind.validate_python(json.loads(out))
