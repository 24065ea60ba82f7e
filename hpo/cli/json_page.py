"""docs/json.md: what commands print with --json, made of the types of documents/.

`python -m hpo.cli.json_page > docs/json.md` writes it; a test compares it with the types.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from hpo.cli.documents.commands import DOCUMENTS

HEAD: Final = """\
# What `--json` prints

Commands that read print JSON, and nothing else, to standard output with `--json`; notes and errors
go to standard error. The exit code is as without it. Numbers that are not finite become `null`,
and times are seconds unless a key says otherwise. Every key is always there, and may be `null`
where the table says so. **The keys are stable**: one may be added, and none is renamed or removed,
or changes its meaning, without a line under "Changed" in CHANGELOG.md that says so. So read the
keys that you know, and pass over others.

This page is made by `python -m hpo.cli.json_page > docs/json.md`, and the tests compare what
commands print with it.
"""


def page() -> str:
    """docs/json.md."""
    parts, told_of = [HEAD], set[str]()
    for command, (how_many, document) in DOCUMENTS.items():
        schema = document.model_json_schema()
        named = {document.__name__: schema, **schema.get("$defs", {})}
        above = f"As above: {document.__name__}." * (document.__name__ in told_of)
        about = " ".join(filter(None, (how_many, above)))
        parts.append(f"## `{command} --json`\n" + (f"\n{about}\n" if about else ""))
        for name, one in named.items():
            if name not in told_of:
                told_of.add(name)
                parts.append(_table(name, one))
    return "\n".join(parts)


def _table(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        f"| `{key}` | {_type(value)} | {value.get('description', '')} |"
        for key, value in schema["properties"].items()
    ]
    return "\n".join([f"**{name}**\n", "| key | type | meaning |", "|---|---|---|", *rows]) + "\n"


def _type(schema: Mapping[str, Any]) -> str:
    """A type in words, such as 'list of Card', 'number or null'."""
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    of_values = schema.get("additionalProperties")
    if isinstance(of_values, dict):
        return f"object of {_type(of_values)}"
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    sys.stdout.write(page())
