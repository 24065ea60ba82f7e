"""Tests of the command watch."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import PROGRAM, environment_of_a_test
from commands import Call, refused, write_run

from hpo.cli import watch
from hpo.config.loading import load_search_config
from hpo.run_folder import RunFolder
from hpo.study.lease import leased
from hpo.study.study import SearchStudy


@pytest.fixture
def run_dir(search_file: Path, tmp_path: Path) -> Path:
    """A run whose trials have all ended, and on which no search works."""
    return write_run(tmp_path / "run", search_file)


def open_study(run_dir: Path) -> SearchStudy:
    run = RunFolder(run_dir)
    config = run.load_config()
    return SearchStudy.open(run.storage_url(config), config.study, config.space)


@pytest.fixture
def driven(run_dir: Path) -> Iterator[SearchStudy]:
    """The run's study, with one trial more, on which this process works."""
    study = open_study(run_dir)
    with leased(study, lambda _text: None):
        study.ask()
        yield study


def test_what_does_not_run_is_shown_once(call: Call, run_dir: Path) -> None:
    code, out, err = call("watch", run_dir)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("no search runs on the study; 4 of 4 trials ended")
    assert lines[1].endswith(
        f"to go on: python run_search.py search {run_dir}/search.yaml --output-dir "
        f"{run_dir.parent} --resume"
    )
    assert len(lines) == 2


def test_a_line_on_each_change_until_the_search_ends(
    call: Call, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search() -> Iterator[None]:
        """A search that goes on whenever it is not looked at."""
        study = open_study(run_dir)
        with leased(study, lambda _text: None):
            number = study.ask().number
            study.report(number, {1: 0.25})
            yield
            yield
            study.report(number, {2: 0.5})
            yield
            study.finish(number, "COMPLETE", {"best_value": 0.5}, 0.5)
            yield
        yield

    steps = search()
    next(steps)
    monkeypatch.setattr(watch.time, "sleep", lambda _seconds: next(steps))
    code, out, err = call("watch", run_dir)
    assert code == 0, err
    lines = [line.rpartition(", ")[0] for line in out.splitlines()]
    assert [line.partition("; 4 of 4")[0] for line in lines[:2]] == [
        "searching; trial 4 epoch 1: 0.2500", "searching; trial 4 epoch 2: 0.5000",
    ]  # fmt: skip
    assert [line.partition(" trials ended")[0] for line in lines[2:4]] == [
        "between trials; 5 of 4", "no search runs on the study; 5 of 4",
    ]  # fmt: skip
    assert len(lines) == 5


def test_json_is_a_document_a_line(call: Call, run_dir: Path) -> None:
    _, out, _ = call("watch", run_dir, "--json")
    values = json.loads(out)
    assert (values["study"], values["num_paused"], values["running"]) == ("run", 0, [])


def test_the_only_study_of_a_database_is_found(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_values: object) -> None:
        """No driver's record."""

    run = RunFolder(write_run(tmp_path / "run", search_file))
    config = run.load_config()
    study = open_study(run.path)
    study.metadata.search_config = config.model_dump(mode="json")
    url = run.storage_url(config)
    assert "4 of 4 trials ended" in call("watch", "--storage", url)[1]
    other, _ = load_search_config(search_file, name="other")
    SearchStudy.create(url, other.study, other.space)
    message = refused(call("watch", "--storage", url))
    assert "no search runs on any of 'run', 'other'; name one (--study-name)" in message
    assert "4 of 4" in call("watch", "--storage", url, "--study-name", "run")[1]
    assert "was not made by this" in refused(
        call("watch", "--storage", url, "--study-name", "other")
    )
    with leased(study, lambda _text: None):
        monkeypatch.setattr(watch.time, "sleep", lambda _: study.driver_record().update(gone))
        assert call("watch", "--storage", url)[0] == 0  # the only one that runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to watch: name a run's folder, or a database (--storage)"),
        (("nowhere",), "not a run folder: nowhere has no search.yaml"),
        (("--storage", "sqlite:////nowhere/s.db"), "no file sqlite:////nowhere/s.db (--storage)"),
    ],
)
def test_what_cannot_be_watched_ends_with_2(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(call("watch", *arguments))


@pytest.mark.parametrize("width", [40, 60])
def test_a_terminal_shows_the_view_and_ctrl_c_leaves_at_once(
    driven: SearchStudy, run_dir: Path, width: int
) -> None:
    driven.report(4, {1: 0.123456})
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    environment = environment_of_a_test() | {"TERM": "xterm", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
        environment.pop(name, None)
    watching = subprocess.Popen(
        [*PROGRAM, "watch", str(run_dir)], stdin=side, stdout=side, stderr=side, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(side)
    row = re.compile(r"^ +4 +1/4 +0\.1235 +0\.1235\b", re.MULTILINE)
    drawn, plain = b"", ""
    while not row.search(plain):  # what is drawn at once may come in pieces
        drawn += os.read(terminal, 65536)
        text = re.sub(rb"\x1b\[[\d;?]*[A-Za-z]", b"", drawn).replace(b"\r", b"")
        plain = text.decode(errors="ignore")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 0
    os.close(terminal)
    assert b"\x1b[?25l" in drawn  # with the cursor hidden
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(map(len, lines)) <= width
