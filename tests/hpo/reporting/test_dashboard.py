import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.errors import StudyError
from hpo.reporting.dashboard import make_dashboard
from hpo.study.study import SearchStudy


@pytest.fixture
def study(search_file: Path, tmp_path: Path) -> SearchStudy:
    config, _ = load_search_config(search_file)
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    study.report(study.ask().number, {1: 0.5})
    return study


@pytest.fixture
def address(study: SearchStudy) -> Iterator[str]:
    server, address = make_dashboard(study, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


def get(address: str, **headers: str) -> tuple[int, str, str]:
    """HTTP status, final address after redirects, and body of a page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.url, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.url, error.read().decode()


def test_it_opens_at_the_study(address: str) -> None:
    root = address.split("/dashboard")[0]
    status, url, body = get(root)
    assert (status, url) == (200, address)
    assert "Optuna Dashboard" in body


def test_it_shows_the_running_trials_curve(address: str) -> None:
    root, _, page = address.partition("/dashboard")
    _, _, body = get(f"{root}/api{page}")
    (trial,) = (t for t in json.loads(body)["trials"] if t["state"] == "Running")
    assert trial["intermediate_values"] == [{"step": 1, "value": 0.5}]


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": ""}]
)
def test_pages_of_elsewhere_are_not_answered(address: str, headers: dict) -> None:
    assert get(address, **headers)[0] == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com", "192.0.2.1"])
def test_it_listens_on_loopback_only(study: SearchStudy, host: str) -> None:
    with pytest.raises(StudyError, match=f"listens on loopback only, got '{host}'"):
        make_dashboard(study, host, 0)


def test_a_taken_port_is_named(study: SearchStudy, address: str) -> None:
    port = int(address.split(":")[2].split("/")[0])
    with pytest.raises(StudyError, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
        make_dashboard(study, "127.0.0.1", port)
