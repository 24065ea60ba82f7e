"""Tests of what commands print: JSON that any parser reads, rows that fit a terminal."""

import json
from typing import Any

import pytest

from hpo.cli import output
from hpo.cli.output import print_json, print_rows, progress_of


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("indent", [2, None])
def test_what_is_not_finite_becomes_null(capsys: pytest.CaptureFixture, indent: int) -> None:
    nan, infinity = float("nan"), float("inf")
    values: dict[str, Any] = {"a": nan, "b": [1.5, (infinity, "NaN")], "c": {"d": -infinity}}
    print_json(values, indent=indent)
    printed = capsys.readouterr().out
    expected = {"a": None, "b": [1.5, [None, "NaN"]], "c": {"d": None}}
    assert json.loads(printed, parse_constant=refuse) == expected
    assert printed.count("\n") == (1 if indent is None else 13)


@pytest.fixture
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Rich take standard output for a terminal of 40 columns, without colours."""
    settings = {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "40", "TERM": "xterm"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("narrow_terminal")
def test_a_long_value_is_folded_in_its_column(capsys: pytest.CaptureFixture) -> None:
    path = "/runs/" + "x" * 40 + "/best/model.onnx"
    print_rows({"winner": "trial 3", "ONNX model": path})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) <= 40 for line in lines)
    assert lines[0] == f"{'winner':16}  trial 3"
    assert lines[1].startswith(f"{'ONNX model':16}  /runs/")
    assert all(line.startswith(" " * 18) for line in lines[2:])
    assert "".join(line[18:] for line in lines[1:]) == path


def test_a_pipe_gets_a_line_a_row(capsys: pytest.CaptureFixture) -> None:
    path = "/runs/" + "x" * 200
    print_rows({"ONNX model": path})
    assert capsys.readouterr().out == f"{'ONNX model':16}  {path}\n"


def test_a_long_listing_says_how_far_it_is_once_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((0.0, 0.5, 1.1, 1.1, 1.5, 2.2, 2.2))
    monkeypatch.setattr(output.time, "monotonic", lambda: next(times))
    tell = output.progress_of_listing()
    for num_files in (100, 12_000, 20_000, 30_000):
        tell(num_files)
    assert capsys.readouterr().err.splitlines() == [
        "listing images: 12,000 files so far",
        "listing images: 30,000 files so far",
    ]


def test_a_long_check_says_in_a_log_how_far_it_is_after_a_second_then_every_ten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((5.0, 5.9, 6.1, 9.0, 16.0, 16.2))
    with progress_of("checking images") as tell:
        monkeypatch.setattr(output.time, "monotonic", lambda: next(times))
        for done in range(1000, 7000, 1000):
            tell(done, 7000)
        monkeypatch.undo()
    assert capsys.readouterr().err.splitlines() == [
        "checking images: 3,000 of 7,000",
        "checking images: 6,000 of 7,000",
    ]


@pytest.mark.usefixtures("narrow_terminal")
def test_a_terminal_gets_a_bar_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_of("checking images") as tell:
        tell(1, 10)
        assert capsys.readouterr().err == ""  # a short check shows none
        real = output.time.monotonic
        monkeypatch.setattr(output.time, "monotonic", lambda: real() + 2)
        tell(5, 10)
        monkeypatch.undo()
    text = capsys.readouterr().err
    assert "checking images" in text
    assert "50%" in text
