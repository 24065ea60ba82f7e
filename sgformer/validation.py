"""Checks plain values against a config class; each mistake becomes a line for the user."""

import difflib
import types
import typing
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from sgformer.errors import ConfigError

MOST_NAMES: Final = 20  # how many known names a message lists at most

AnyConfig = typing.TypeVar("AnyConfig", bound=BaseModel)


class FrozenConfig(BaseModel):
    """A section of a configuration: it is immutable and refuses unknown keys."""

    # pydantic protects names that begin with `model_`; here they are names of settings.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class SettingError(ValueError):
    """A check of several settings failed; the message begins with the path of the one to change.

    Attributes:
        path: The setting's dotted path within the config that the validator belongs to.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


def nearest_known(name: str, known: typing.Iterable[str]) -> str:
    """The part 'nearest known: NAMES' of the error message about an unknown name."""
    known = tuple(dict.fromkeys(known))
    spelled: dict[str, list[str]] = {}
    for one in known:
        spelled.setdefault(one.lower(), []).append(one)
    found = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.5)
    close = [one for lower in found for one in spelled[lower]] or known[:MOST_NAMES]
    more = len(known) - MOST_NAMES
    rest = f" and {more} more" if more > 0 and len(close) == MOST_NAMES else ""
    return f"nearest known: {', '.join(close)}{rest}"


def validate(model: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """A config of class `model`, built from plain values.

    Args:
        model: Class of the config.
        values: The values, as read from YAML or JSON.
        source: Where a user can correct the values, such as a file's name.

    Raises:
        ConfigError: A value is wrong. The message has a line for each mistake, with the key, the
            value, what is allowed, and `source`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{line} ({source})" for line in lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    """One of pydantic's errors as a line for the user: key, mistake and value."""
    path = [str(part) for part in item["loc"] if part not in _UNION_TAGS]
    error = item.get("ctx", {}).get("error")
    if isinstance(error, SettingError):
        path += error.path.split(".")
    name = ".".join(path) or "the file"
    if item["type"] == "extra_forbidden":
        fields = fields_at(model, path[:-1])
        if path[-1] in fields:  # the key is a setting of another `type` than the given one
            return f"{name}: does not go with the type given beside it"
        return f"{name}: unknown key; {nearest_known(path[-1], fields)}"
    if item["type"] == "value_error":
        return f"{name}: {error}"
    if item["type"] == "missing":
        return f"{name}: is required"
    if item["type"] == "union_tag_not_found":
        tag = item["ctx"]["discriminator"].strip("'")
        return f"{name}.{tag}: is required; a name is the whole dotted path"
    message = item["msg"][0].lower() + item["msg"][1:].replace("tuple", "list")
    return f"{name}: {message}, got {item['input']!r}"


# Tags of discriminated unions and validators, which pydantic puts into an error's location.
_UNION_TAGS = ("float", "int", "categorical", "function-after", "function-before")


def fields_at(model: type[BaseModel], path: typing.Sequence[str]) -> tuple[str, ...]:
    """The names of the settings in the section at a path; empty if there is no such section."""
    sections: tuple[type[BaseModel], ...] = (model,)
    is_mapping = False
    for part in path:
        if is_mapping:  # the user chose this key, such as the name of a searched parameter
            is_mapping = False
            continue
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        sections = tuple(below for field in fields for below in _sections(field.annotation))
        is_mapping = any(typing.get_origin(field.annotation) is dict for field in fields)
    return tuple(dict.fromkeys(name for section in sections for name in section.model_fields))


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The config classes among the types that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, dict):
        return tuple(s for arg in typing.get_args(annotation) for s in _sections(arg))
    return ()
