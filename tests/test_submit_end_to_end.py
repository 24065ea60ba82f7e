"""A search that is sent to a real Ray head with a token, stopped, and resumed."""

import csv
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS, Background, load_trials, run
from commands import refused
from cutting_proxy import CuttingProxy
from ray_head import TOKEN, RayHead
from searches import write_search

pytestmark = pytest.mark.cluster

SECRET = "hunter2"


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    head = RayHead()
    yield head
    head.stop()


@pytest.fixture
def laptop(head: RayHead) -> dict[str, str]:
    """The environment of the machine that submits: the token, and a password that stays there."""
    return {
        "RAY_API_SERVER_ADDRESS": head.address,
        "RAY_AUTH_TOKEN": TOKEN,
        "HPO_STORAGE": f"postgresql+psycopg://user:{SECRET}@host/database",
    }


def epochs_begun(attempts: Path) -> list[str]:
    return [row["epoch"] for row in csv.DictReader(attempts.open())]


def first_word_of(text: str, row: str) -> str:
    return next(line.split()[-1] for line in text.splitlines() if line.startswith(row))


def test_a_submitted_search_outlives_its_laptop_and_is_stopped_and_resumed(
    head: RayHead, laptop: dict[str, str], image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "sent.yaml", image_folder, cache_dir,
        study={"num_trials": 1, "enqueue": []},
        train={"epoch_images": 3000, "max_epochs": 2},
        scheduler={"name": "none"},
        retrain={"seeds": 0, "max_epochs": 1},
        space={"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
    )  # fmt: skip
    shared = tmp_path / "shared"
    attempts = shared / "sent" / "trials" / "0" / "attempts.csv"
    submit = ("submit", search_file, "--output-dir", shared, "--image-has-it")

    # Ctrl-C leaves the job running.
    first = Background(*submit, log=tmp_path / "first.log", environment=laptop)
    first.wait_for(attempts.exists)
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(PATIENCE_SECONDS) == 0
    log = first.log.read_text()
    job = first_word_of(log, "job ")
    follow = f"python run_search.py jobs logs --follow {job}"
    assert f"job {job} goes on; to follow it again: {follow}" in log
    assert "HPO_STORAGE is not sent" in log

    # A stop saves the epoch under way.
    stopped = run("jobs", "stop", job, **laptop)
    assert "stopped since" in stopped.stdout
    assert (attempts.parent / "within_epoch.safetensors").exists()
    message = run("jobs", "logs", "--follow", job, expect=1, **laptop).stderr
    assert f"job {job} was stopped; `submit --resume` goes on with it" in message

    # The resumed job ends by itself, though the laptop's side is killed.
    begun = epochs_begun(attempts)
    second = Background(*submit, "--resume", log=tmp_path / "second.log", environment=laptop)
    second.wait_for(lambda: len(epochs_begun(attempts)) > len(begun))
    second.kill_everything()
    resumed = first_word_of(second.log.read_text(), "job ")
    watching = Background("watch", resumed, log=tmp_path / "watch.log", environment=laptop)
    # Who follows it goes on after a lost connection, and reads every line once.
    proxy = CuttingProxy(head.address, b"/logs/tail", num_bytes=500)
    through = laptop | {"RAY_API_SERVER_ADDRESS": proxy.address}
    followed = run("jobs", "logs", "--follow", resumed, **through).stdout
    assert proxy.num_cut == 1
    assert "ONNX model" in followed
    assert followed == run("jobs", "logs", resumed, **laptop).stdout
    assert (shared / "sent" / "best" / "model.onnx").exists()
    assert watching.process.wait(PATIENCE_SECONDS) == 0
    seen = watching.log.read_text()
    assert "trials ended, " in seen
    assert f"the search is complete: {shared}/sent/report.html" in seen
    (trial,) = load_trials(shared / "sent")
    assert list(trial.intermediate_values) == [1, 2]
    went_on = epochs_begun(attempts)[len(begun)]
    assert went_on.startswith(f"{begun[-1]}.")  # within an epoch

    listed = json.loads(run("jobs", "list", "--json", **laptop).stdout)
    assert [(one["id"], one["status"]) for one in listed] == [
        (resumed, "succeeded"), (job, "stopped"),
    ]  # fmt: skip
    assert {one["run"] for one in listed} == {str(shared / "sent")}

    records = [path for path in head.folder.rglob("*") if path.is_file()]
    assert any(resumed.encode() in path.read_bytes() for path in records)
    assert not [path for path in records if SECRET.encode() in path.read_bytes()]


def test_a_search_that_cannot_start_ends_with_1_and_its_reason(
    laptop: dict[str, str], search_file: Path, tmp_path: Path
) -> None:
    done = run(
        "submit", search_file, "--output-dir", tmp_path, "--image-has-it",
        "--data-dir", tmp_path / "it's not there", expect=1, **laptop,
    )  # fmt: skip
    job = first_word_of(done.stdout, "job ")
    reason = f"image folder not found: {tmp_path}/it's not there"
    assert f"error: job {job} failed: {reason}" in done.stderr
    assert reason in run("jobs", "status", job, **laptop).stdout
    assert reason in run("jobs", "logs", job, **laptop).stdout


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({"RAY_AUTH_TOKEN": "wrong"}, "Invalid authentication token (RAY_AUTH_TOKEN, "),
        ({"RAY_AUTH_TOKEN": ""}, "couldn't find an authentication token (RAY_AUTH_TOKEN, "),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/none"}, "cannot be opened or is empty"),
    ],
)
def test_a_wrong_or_missing_token_ends_with_2(
    laptop: dict[str, str],
    search_file: Path,
    tmp_path: Path,
    token: dict[str, str],
    message: str,
) -> None:
    environment = laptop | {"HOME": str(tmp_path)} | token
    done = run("submit", search_file, "--output-dir", "/shared", expect=2, **environment)
    assert message in refused((done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize("command", [("status",), ("stop",), ("logs",), ("logs", "--follow")])
def test_an_unknown_job_ends_with_2(laptop: dict[str, str], command: tuple[str, ...]) -> None:
    done = run("jobs", *command, "digits-0101-000000", expect=2, **laptop)
    assert "no job 'digits-0101-000000' at http://127.0.0.1:" in done.stderr
