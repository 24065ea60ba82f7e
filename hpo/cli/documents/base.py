"""What the documents that commands print with --json are made of."""

from typing import Any

from pydantic import BaseModel, Field

Params = dict[str, Any]


class Document(BaseModel, extra="forbid", strict=True):
    """An object whose keys are all known."""


class OpenDocument(BaseModel, extra="allow", strict=True):
    """An object with further keys, which are names of metrics or objectives."""


def told(text: str) -> Any:
    """A key with what it means."""
    return Field(description=text)
