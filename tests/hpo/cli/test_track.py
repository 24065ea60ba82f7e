"""Tests of the command that sends a run to trackers, and of the options of `search` for them."""

import shutil
from pathlib import Path

import pytest
from command_line import load_trials
from commands import Call, refused, write_run
from ports import free_port
from searches import FinishedSearch
from trackers import tensorboard_steps


def test_a_finished_run_is_sent_whole_and_once(
    call: Call, finished: FinishedSearch, tmp_path: Path
) -> None:
    run_dir = tmp_path / "digits"
    shutil.copytree(finished.folder, run_dir)
    for _ in range(2):
        code, out, err = call("track", run_dir, "--tensorboard")
        assert code == 0, err
        assert "TensorBoard" in out
    for trial in load_trials(run_dir):
        folder = run_dir / "tensorboard" / f"trial-{trial.number}"
        epochs = sorted(trial.intermediate_values)
        assert tensorboard_steps(folder, "val_top1") == epochs
        assert tensorboard_steps(folder, "train_loss") == epochs


def test_track_needs_a_tracker(call: Call, search_file: Path, tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    assert "name a tracker: --tensorboard" in refused(call("track", run_dir))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on-end", "no-such-program"), "tracking.on_end: takes a program of this machine"),
        (("--webhook", "hooks.slack.com/x"), "webhook: takes a URL that begins with http"),
        (("--mlflow", "http://"), "mlflow: takes a tracking URI of MLflow"),
        (("--mlflow", f"http://127.0.0.1:{free_port()}"), "cannot be used (--mlflow)"),
    ],
)
def test_a_search_that_nobody_can_be_told_of_is_refused_at_once(
    options: tuple[str, str], message: str, call: Call, search_file: Path, tmp_path: Path
) -> None:
    search = ("search", search_file, "--output-dir", tmp_path / "runs", "--dry-run")
    assert message in refused(call(*search, *options))
    assert not (tmp_path / "runs").exists()
