"""Tests of the page of all settings."""

import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from settings_page import settings_page

from hpo.config.schema import SearchConfig

CELLS = re.compile(r"(?<!\\)\|")


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, str, str]]:
    """Type, default and meaning of each setting, by its path."""
    found = {}
    for section in settings_page().split("\n## ")[1:]:
        path = section.partition("\n")[0]
        for line in section.splitlines():
            if line.startswith("| `"):
                key, *others = (cell.strip() for cell in CELLS.split(line)[1:-1])
                found[f"{path}.{key.strip('`')}"] = tuple(others)
    return found


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        elif name != "space":
            yield f"{prefix}{name}"


def test_every_setting_has_a_row(rows: dict[str, tuple[str, str, str]]) -> None:
    kinds = {path for path in rows if path.startswith("space, type ")}
    assert {*rows} - kinds == {*settings(SearchConfig), "budget.stop_when.gain_per_gpu_hour"}
    assert {path.split(".")[0] for path in kinds} == {
        "space, type float", "space, type int", "space, type categorical",
    }  # fmt: skip


def test_every_setting_has_a_type_a_default_and_a_meaning(
    rows: dict[str, tuple[str, str, str]],
) -> None:
    assert [path for path, cells in rows.items() if not all(cells)] == []


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [
        ("study.num_trials", "whole number, at least 1", "required"),
        ("study.constraints", "list of: text", "`[]`"),
        ("budget.gpu_hours", "number, above 0 or `null`", "`null`"),
        ("train.model.drop_rate", "number, at least 0, below 1", "`0.0`"),
        ("train.optimizer.lr_schedule", "`cosine`, `constant`", '`"cosine"`'),
        ("train.data.data_dir", "path or `null`", "`null`"),
        ("train.data.mean", "list of 3: number or `null`", "`null`"),
        ("export.int8", "true or false or `smallest`", "`false`"),
        ("space, type int.step", "whole number, at least 1", "`1`"),
    ],
)
def test_types_ranges_and_defaults_are_in_words(
    rows: dict[str, tuple[str, str, str]], path: str, kind: str, default: str
) -> None:
    assert rows[path][:2] == (kind, default)


def test_meanings_have_the_words_of_a_search_file(rows: dict[str, tuple[str, str, str]]) -> None:
    assert rows["train.optimizer.max_grad_norm"][2].endswith("`null` turns clipping off.")
    assert not [path for path, cells in rows.items() if re.search(r"\bNone\b", cells[2])]
