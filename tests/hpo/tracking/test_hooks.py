import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from trackers import WebhookServer

from hpo.config.tracking import TrackingConfig
from hpo.tracking import hooks
from hpo.tracking.hooks import check_hooks, tell_the_end, webhook_note
from hpo.tracking.search_end import SearchEnd
from sgformer.errors import ConfigError

END = SearchEnd(
    "tiny; rm -rf $HOME", "done", None, "/runs/tiny", "val_top1", 3, 0.95, 0.02, -0.01, 0.05,
    "+0.0200 over the default", {"COMPLETE": 3}, 12.5, "/runs/tiny/best", None,
)  # fmt: skip


@pytest.fixture
def notes() -> list[str]:
    return []


def script(folder: Path, text: str) -> str:
    path = folder / "on end.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"'{path}'"


def test_a_command_gets_the_json_and_variables_and_no_shell(
    tmp_path: Path, notes: list[str]
) -> None:
    told, variables = tmp_path / "told", tmp_path / "variables"
    command = script(tmp_path, f'cat > "{told}"; env > "{variables}"; echo "$1" > "{tmp_path}/1"')
    tell_the_end(TrackingConfig(on_end=f"{command} '$HPO_END_STUDY; false'"), END, notes.append)
    assert notes == []
    assert json.loads(told.read_text()) == END.as_json()
    lines = variables.read_text().splitlines()
    assert "HPO_END_STUDY=tiny; rm -rf $HOME" in lines
    assert {"HPO_END_STATE=done", "HPO_END_BEST_VALUE=0.95", "HPO_END_REPORT="} <= {*lines}
    assert (tmp_path / "1").read_text() == "$HPO_END_STUDY; false\n"


def test_a_command_that_fails_is_a_note(tmp_path: Path, notes: list[str]) -> None:
    command = script(tmp_path, "echo no such channel >&2; exit 3")
    tell_the_end(TrackingConfig(on_end=command), END, notes.append)
    assert len(notes) == 1
    assert "ended with exit code 3: no such channel" in notes[0]


def test_a_command_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "SECONDS_OF_COMMAND", 1.0)
    late = tmp_path / "late"
    command = script(tmp_path, f'(sleep 4; touch "{late}") & sleep 600')
    tell_the_end(TrackingConfig(on_end=command), END, notes.append)
    assert "was ended: it took 1 s" in notes[0]
    time.sleep(4)
    assert not late.exists()


@pytest.mark.parametrize("command", ["no-such-program --now", "'unfinished", "/etc", " "])
def test_a_command_that_does_not_exist_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking.on_end: .* \(--on-end\)"):
        check_hooks(TrackingConfig(on_end=command))


@pytest.fixture
def busy() -> Iterator[WebhookServer]:
    server = WebhookServer(503, 200)
    yield server
    server.stop()


def test_a_webhook_is_told_again_if_it_is_busy(busy: WebhookServer, notes: list[str]) -> None:
    tell_the_end(TrackingConfig(webhook=f"{busy.url}/hook?a=b"), END, notes.append)
    assert notes == []
    assert busy.received == [("/hook?a=b", END.as_json())] * 2
    assert busy.received[0][1]["text"] == (
        "search tiny; rm -rf $HOME: done, val_top1 0.9500 (trial 3), gain +0.0200 over the default"
    )


@pytest.mark.parametrize("status", [404, 302])
def test_a_webhook_that_refuses_is_a_note_without_the_secret(
    status: int, notes: list[str]
) -> None:
    server = WebhookServer(status)
    try:
        tell_the_end(TrackingConfig(webhook=f"{server.url}/secret"), END, notes.append)
    finally:
        server.stop()
    assert notes == [f"the webhook {server.url}/*** was not told: it answered {status}"]
    assert len(server.received) == 1


def test_a_webhook_that_is_away_is_a_note_without_the_secret(notes: list[str]) -> None:
    url = f"http://user:secret@127.0.0.1:{free_port()}/secret"
    tell_the_end(TrackingConfig(webhook=url), END, notes.append)
    assert "was not told: ConnectionError, after 3 tries" in notes[0]
    assert "secret" not in notes[0]


def test_a_masked_webhook_is_not_told_and_that_is_said(notes: list[str]) -> None:
    config = TrackingConfig(webhook="http://127.0.0.1:1/***")
    tell_the_end(config, END, notes.append)
    assert notes == []
    assert "give the URL again (HPO_WEBHOOK, --webhook)" in str(webhook_note(config))
