"""Tests of what submit refuses before it asks the cluster; tests/test_submit_* ask one."""

import os
import sys
from pathlib import Path

import pytest
from command_line import run
from commands import Call, refused

NOBODY = ("--ray-address", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "train.modle.name=x"), "train.modle: unknown key; nearest known: model"),
        (("--data-dir", "images"), "must be absolute, but train.data.data_dir is 'images'"),
        (
            ("--set", "train.data.cache_dir=a", "--set", "train.model.checkpoint=b"),
            "but train.data.cache_dir is 'a', train.model.checkpoint is 'b'",
        ),
        (
            ("--set", "study.warm_start=[runs/x, /runs/y, 'sqlite:///z.db#s']"),
            "but study.warm_start is 'runs/x', study.warm_start is 'z.db'",
        ),
        (("--set", "study.storage=journal:here"), "but study.storage is 'here'"),
        (
            ("--set", "space.model.checkpoint={type: categorical, choices: [null, c]}"),
            "but space.model.checkpoint is 'c'",
        ),
        (("--output-dir", "runs"), "must be absolute, got runs (--output-dir)"),
        (("--storage", "sqlite:///a.db"), "must be absolute, got sqlite:///a.db (--storage)"),
        (("--storage", "nonsense"), "not a storage URL: 'nonsense'"),
        (("--set", "train.data.data_dir=null"), "no images given: pass --data-dir"),
        (
            (),
            "no Ray dashboard answers at http://127.0.0.1:1: [Errno 111] Connection refused; "
            "a dashboard can be reached from its own machine only, unless ",
        ),
        (("--ray-address", "head:6379"), "not the address of a Ray dashboard: 'head:6379'"),
    ],
)
def test_what_can_be_known_here_is_refused_here(
    call: Call, search_file: Path, options: tuple[str, ...], message: str
) -> None:
    command = ("submit", search_file, "--output-dir", "/shared/runs", *NOBODY, *options)
    assert message in refused(call(*command))


@pytest.mark.parametrize("url", ["user:hunter2@host/db", "user@host/db?password=hunter2"])
def test_a_password_is_not_sent_and_not_shown(call: Call, search_file: Path, url: str) -> None:
    message = refused(
        call(
            "submit", search_file, "--output-dir", "/shared/runs", *NOBODY,
            "--storage", f"postgresql+psycopg://{url}",
        )
    )  # fmt: skip
    assert "start the cluster's nodes with the whole URL in HPO_STORAGE" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "setting",
    ["tracking.webhook=https://hooks.slack.com/hunter2", "tracking.mlflow=http://u:hunter2@host"],
)
def test_a_secret_url_is_not_sent_and_not_shown(
    call: Call, search_file: Path, setting: str
) -> None:
    command = ("submit", search_file, "--output-dir", "/shared/runs", *NOBODY)
    message = refused(call(*command, "--set", setting))
    assert "start the cluster's head with HPO_WEBHOOK or HPO_MLFLOW" in message
    assert "hunter2" not in message


def test_a_storage_of_this_machine_is_said_to_stay_here(
    call: Call, search_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", "journal:/here")
    message = refused(call("submit", search_file, "--output-dir", "/shared/runs", *NOBODY))
    assert "note: HPO_STORAGE is not sent" in message


def test_the_jobs_api_that_is_not_installed_is_named(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert "pip install -c constraints.txt '.[cluster]'" in refused(call("jobs", "list", *NOBODY))


@pytest.mark.parametrize("command", [("submit",), ("jobs",), ("jobs", "logs")])
def test_help_fits_a_terminal(command: tuple[str, ...]) -> None:
    text = run(*command, "--help", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80


def test_the_address_is_that_of_rays_own_variable(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    assert "answers at http://127.0.0.1:2: " in refused(call("jobs", "list"))
    assert "answers at http://127.0.0.1:1: " in refused(call("jobs", "list", *NOBODY))
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:2"
