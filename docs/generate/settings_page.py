"""The page of all settings of a search file, made of the config models.

Names, types, defaults and ranges are those of the JSON schema that pydantic makes of SearchConfig;
meanings are the `Attributes:` of the models' docstrings.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from griffe import Docstring

from hpo.config.schema import SearchConfig

Schema = Mapping[str, Any]

HEAD: Final = """\
# Every setting

This page is made of the models that check a search file, so it has every setting, with its default
and what is allowed. What the settings do together, and examples, are in
[the search file](../search-file.md) and in [training](../training.md). `--set PATH=VALUE` takes
each by its section and its name, such as `train.optimizer.batch_size=32`. `space` maps the path of
a setting of `train` to a parameter, which has one of three types.
"""
WORDS: Final = {
    "integer": "whole number", "number": "number", "boolean": "true or false", "string": "text",
    "object": "mapping", "null": "`null`",
}  # fmt: skip
BOUNDS: Final = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}",
    "maximum": "at most {}", "exclusiveMaximum": "below {}",
    "minLength": "length at least {}", "maxLength": "length at most {}", "pattern": "matches `{}`",
}  # fmt: skip


def settings_page() -> str:
    """The page in Markdown: a section for each config model, with a table of its settings."""
    schema = SearchConfig.model_json_schema()
    sections = [HEAD]
    for path, model in _sections(schema, schema["$defs"]):
        sections.append(f"## {path}\n\n{_text(model)}\n\n{_table(model)}")
    return "\n\n".join(sections) + "\n"


def _sections(schema: Schema, models: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """Pairs of dotted path and schema of all models below a model, in the order of the file."""
    for name, value in schema["properties"].items():
        path = f"{prefix}{name}"
        for kind in _models_in(value):
            model = models[kind]
            of_type = model["properties"].get("type", {}).get("const")
            yield f"{path}, type {of_type}" if of_type else path, model
            yield from _sections(model, models, f"{path}.")


def _models_in(value: Schema) -> list[str]:
    """Names of the models that a setting may be; none if it is a plain value."""
    if "$ref" in value:
        return [value["$ref"].rpartition("/")[2]]
    entries = value.get("additionalProperties")
    parts = [*value.get("anyOf", ()), *value.get("oneOf", ())]
    parts += [entries] if isinstance(entries, dict) else []
    return [name for part in parts for name in _models_in(part)]


def _text(model: Schema) -> str:
    """A model's docstring without its attributes."""
    return _yaml_words(_parsed(model)[0].value)


def _parsed(model: Schema) -> list[Any]:
    return Docstring(inspect.cleandoc(model["description"]), parser="google").parse()


def _meanings(model: Schema) -> dict[str, str]:
    sections = [one for one in _parsed(model) if one.kind.value == "attributes"]
    return {one.name: _yaml_words(one.description) for part in sections for one in part.value}


def _table(model: Schema) -> str:
    meanings = _meanings(model)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, value in model["properties"].items():
        if "$ref" not in value:  # else it is a section of its own
            kind, default = _kind(value), _default(name, value, model)
            rows.append(f"| `{name}` | {kind} | {default} | {meanings.get(name, '')} |")
    return "\n".join(rows)


def _default(name: str, value: Schema, model: Schema) -> str:
    if name in model.get("required", ()):
        return "required"
    return f"`{json.dumps(value.get('default'))}`"


def _kind(value: Schema) -> str:
    """A setting's type and range in words, such as 'whole number, at least 1, or `null`'."""
    parts = [*value.get("anyOf", ()), *value.get("oneOf", ())]
    if parts:
        return " or ".join(dict.fromkeys(_kind(part) for part in parts))
    if "$ref" in value:
        return "text" if value["$ref"].endswith("/Constraint") else "mapping"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    bounds = [text.format(value[key]) for key, text in BOUNDS.items() if key in value]
    return ", ".join([_plain_kind(value), *bounds])


def _plain_kind(value: Schema) -> str:
    if "prefixItems" in value:
        kinds = [_kind(one) for one in value["prefixItems"]]
        return f"list of {len(kinds)}: {'; '.join(dict.fromkeys(kinds))}"
    if value.get("type") == "array":
        return f"list of: {_kind(value['items'])}"
    if value.get("format") == "path":
        return "path"
    return WORDS[value.get("type", "object")]


def _yaml_words(text: str) -> str:
    """The text as one line of a table, in which a search file's `null` stands for None."""
    return re.sub(r"\bNone\b", "`null`", re.sub(r"\s*\n\s*", " ", text)).replace("|", "\\|")
