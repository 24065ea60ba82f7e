"""Tests of the page of all messages."""

from pathlib import Path

import pytest
from messages_page import messages_of, messages_page

SOURCE = """
class Config(FrozenConfig):
    def check(self, path):
        raise ValueError(f"names no file, got {path!r}")

def other(path, number):
    raise errors.DataError(
        f"cannot read {path}: image {number} "
        "is damaged"
    )
    raise RunError("the search" + f" failed: {path}") from None
    raise SettingError("a.path", f"must be at least {number}")
    raise KeyError("no message of ours")
    raise ConfigError(path)
    raise
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return path


def test_messages_are_read_with_dots_for_values_and_with_exit_codes(source: Path) -> None:
    assert [*messages_of(source)] == [
        ("names no file, got …", 2),
        ("cannot read …: image … is damaged", 2),
        ("the search failed: …", 1),
        ("must be at least …", 2),
    ]


def test_a_value_error_beside_no_settings_is_no_message_of_the_program(source: Path) -> None:
    source.write_text(SOURCE.replace("(FrozenConfig)", ""))
    assert [text for text, _ in messages_of(source)] == [
        "cannot read …: image … is damaged", "the search failed: …",
    ]  # fmt: skip


def test_the_page_has_messages_of_each_package_with_their_exit_codes() -> None:
    page = messages_page()
    for row in (
        "| --set takes path=value, got … | 2 | `loading.py` |",
        "| another process is working on …: … | 2 | `run\\_folder.py` |",
        "| no space left on the disk of … | 1 | `disk.py` |",
    ):
        assert row.replace("`run\\_folder.py`", "`run_folder.py`") in page
    assert page.count("\n## ") > 15
