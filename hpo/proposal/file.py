"""The text of a search file: a shipped one's settings, those that rules chose, and the reasons."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

from hpo.config.schema import SearchConfig
from hpo.proposal.rules import Choice, Proposal
from sgformer.validation import fields_at

WIDTH: Final = 99
HEAD: Final = """\
Written by `init`: {why}.
A setting with a reason beside it was chosen by a rule (docs/init.md); the others are those of
search_spaces/{recipe}.yaml, which says when to use it. Change what you know better.
"""


def search_file(proposal: Proposal) -> str:
    """The search file as YAML with comments."""
    values = _recipe(proposal.recipe)
    values["study"].setdefault("name", study_name(proposal))
    for choice in proposal.choices:
        _set(values, choice)
    reasons = {choice.path: choice.why for choice in proposal.choices if choice.why}
    head = _comment(HEAD.format(why=proposal.why, recipe=proposal.recipe), "")
    return "".join(f"{line}\n" for line in (*head, *_lines(values, (), reasons)))


def study_name(proposal: Proposal) -> str:
    """A name that is allowed for a study, after the folder or file of the images."""
    stem = Path(proposal.chosen("train", "data", "data_dir")).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:100] or proposal.recipe


def _recipe(name: str) -> dict[str, Any]:
    text = files("search_spaces").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def _set(values: dict[str, Any], choice: Choice) -> None:
    *above, last = choice.path
    for key in above:
        values = values.setdefault(key, {})
    values[last] = choice.value


def _lines(
    values: Mapping[str, Any], path: tuple[str, ...], reasons: Mapping[tuple[str, ...], str]
) -> Iterator[str]:
    """The lines of a section, its keys in the order of the config's fields."""
    fields = fields_at(SearchConfig, path)
    indent = "  " * len(path)
    for key in sorted(values, key=lambda key: fields.index(key) if key in fields else 0):
        here, value = (*path, key), values[key]
        if isinstance(value, Mapping) and path != ("space",):
            yield f"{indent}{key}:"
            yield from _lines(value, here, reasons)
            continue
        line = f"{indent}{key}: {_flow(value)}"
        yield from _with_reason(line, reasons.get(here), indent)


def _with_reason(line: str, why: str | None, indent: str) -> Sequence[str]:
    """The reason behind the value, or in lines above it if it is too long for that."""
    if not why:
        return (line,)
    beside = f"{line}  # {why}"
    return (beside,) if len(beside) <= WIDTH else (*_comment(why, indent), line)


def _comment(text: str, indent: str) -> list[str]:
    wrapped = (textwrap.wrap(line, WIDTH - len(indent) - 2) for line in text.splitlines())
    return [f"{indent}# {line}" for lines in wrapped for line in lines]


def _flow(value: Any) -> str:
    """The value as YAML on one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=2**31, allow_unicode=True
    )
    return text.removesuffix("...\n").rstrip("\n")
