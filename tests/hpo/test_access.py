import os
from pathlib import Path

import pytest

from hpo.access import SERVE_TOKEN, listen, take_token
from sgformer.errors import InputError

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVE_TOKEN, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_no_token(host: str) -> None:
    assert take_token(None, host, SERVE_TOKEN) == (None, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "name.example"])
def test_another_address_gets_a_new_token_each_time(host: str) -> None:
    (first, is_new), (second, _) = (
        take_token(None, host, SERVE_TOKEN),
        take_token(None, host, SERVE_TOKEN),
    )
    assert is_new
    assert first is not None
    assert len(first) >= 32
    assert first != second


def test_a_token_comes_from_a_file_or_the_environment_which_then_holds_it_no_longer(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert take_token(file, "0.0.0.0", SERVE_TOKEN) == (TOKEN, False)
    monkeypatch.setenv(SERVE_TOKEN, TOKEN)
    assert take_token(None, "127.0.0.1", SERVE_TOKEN) == (TOKEN, False)
    assert SERVE_TOKEN not in os.environ


def test_a_file_that_others_can_read_is_refused(file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(InputError, match=r"others can read the token in .* \(mode 644; exp"):
        take_token(file, "0.0.0.0", SERVE_TOKEN)


@pytest.mark.parametrize("text", ["", "short", "with a\nbreak in it ...", "é" * 20])
def test_a_bad_token_is_refused_and_not_shown(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError, match="expected at least 16, of printable ASCII") as caught:
        take_token(file, "0.0.0.0", SERVE_TOKEN)
    assert not text or text not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the token in .*none.*--token-file"):
        take_token(tmp_path / "none", "0.0.0.0", SERVE_TOKEN)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(InputError, match=rf"cannot listen at {host}:80: .* \(--host, --port\)"):
        listen(host, 80)


def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen at 127\.0\.0\.1:{port}: Address"):
            listen("127.0.0.1", port)
