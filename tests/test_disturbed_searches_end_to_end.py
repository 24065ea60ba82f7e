"""Tests of searches that a signal, a kill or the machine disturbs, with a real Ray, no export.

Kills of drivers, workers, nodes and databases, and a full disk, are in tests/chaos.
"""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from command_line import (
    PATIENCE_SECONDS,
    PROGRAM,
    TRAIN_ONLY,
    Background,
    fresh_trainings,
    load_epochs,
    load_trials,
    num_epochs_reported,
    run,
)
from optuna.trial import TrialState
from searches import search_values, write_search

LEARNING_RATE = {"type": "float", "low": 1e-4, "high": 1e-2}


def test_a_closed_terminal_ends_a_search_that_has_shown_a_live_table(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "shown.yaml", image_folder, cache_dir,
        study={"num_trials": 2, "enqueue": []},
        train={"max_epochs": 99, "early_stopping": {"patience": None}},
        space={"optimizer.learning_rate": LEARNING_RATE},
    )  # fmt: skip
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, "search", str(search_file), "--output-dir", str(tmp_path)],
        stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown, text = b"", ""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))
            if re.search(r"\d/99", text) and "trial  epoch  latest" in text:
                process.send_signal(signal.SIGHUP)
    except OSError:  # the terminal's other end is closed
        pass
    assert process.wait() == 1, text
    assert "starting 2 workers" in text
    assert "Traceback" not in text
    assert "interrupted; continue with --resume" in " ".join(text.split())


def test_a_comparison_is_interrupted_at_once_and_goes_on_after_that_and_a_kill(
    own_image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_image_folder / "val")  # so each seed splits another val off train
    search_file = write_search(
        tmp_path / "few.yaml", own_image_folder, cache_dir,
        study={"num_trials": 3, "enqueue": []}, retrain={"top_k": 2, "seeds": 3},
        scheduler={"name": "freeze_thaw"}, space={"optimizer.learning_rate": LEARNING_RATE},
    )  # fmt: skip
    folder = tmp_path / "runs" / "few"
    options = (search_file, "--output-dir", folder.parent)
    running = Background("search", *options, log=tmp_path / "log")
    try:
        running.wait_for(lambda: " on seed " in running.log.read_text())
        for _ in range(20):  # by an impatient hand, and a parent that passes each one on
            running.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert running.process.wait(PATIENCE_SECONDS) == 1
    finally:
        running.kill_everything()
    said = running.log.read_text()
    last = f"error: interrupted; continue with --resume (study 'few', {folder})"
    assert said.splitlines()[-1] == last
    assert "Traceback" not in said
    assert "shutdown" not in said
    first = fresh_trainings(folder)
    assert 1 <= len(first) < 9
    status = run("status", folder).stdout
    assert re.search(r"finalists +\d of [69] trainings on fresh seeds have ended", status)
    assert "winner" not in status

    again = Background(*options, "--resume", log=tmp_path / "log", program=TRAIN_ONLY)
    try:
        again.wait_for(lambda: len(fresh_trainings(folder)) > len(first))
    finally:
        again.kill_everything()
    before = fresh_trainings(folder)
    run(*options, "--resume", program=TRAIN_ONLY)
    after = fresh_trainings(folder)
    assert len(after) in {6, 9}  # 9: the default is a third finalist
    assert after.items() >= before.items() >= first.items()  # nothing was trained again
    assert Counter(t["seed"] for t in after.values()).keys() == {1, 2, 3}

    more = run(*options, "--resume", "--set", "retrain.seeds=4", program=TRAIN_ONLY)
    assert "on seed 4" in more.stderr
    assert "on seed 3" not in more.stderr
    assert "on 4 fresh seeds" in run("status", folder).stdout
    assert fresh_trainings(folder).items() > after.items()
    few = ("--resume", "--set", "retrain.seeds=4", "--set", "study.num_trials=9")
    idle = run(*options, *few, "--set", "budget.total_epochs=52", program=TRAIN_ONLY)
    assert "no new trial was started: the remaining budget is reserved" in idle.stderr
    assert len(load_trials(folder)) == 3
    fewer = ("--resume", "--set", "retrain.seeds=1", "--set", "study.num_trials=6")
    run(*options, *fewer, program=TRAIN_ONLY)
    assert len(load_trials(folder)) > 3


def test_paused_trials_outlive_a_kill_and_simulate_decides_the_same(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "thaw.yaml", image_folder, cache_dir,
        study={"num_trials": 9, "enqueue": []}, scheduler={"name": "freeze_thaw"},
        resources={"max_concurrent_trials": 1}, budget={"total_epochs": 26},
        space={"optimizer.learning_rate": LEARNING_RATE},
        retrain={"max_epochs": 1},
    )  # fmt: skip
    folder = tmp_path / "runs" / "thaw"
    command = (search_file, "--output-dir", folder.parent, "--set", "train.max_epochs=6")
    running = Background(*command, log=tmp_path / "log", program=TRAIN_ONLY)
    try:
        running.wait_for(lambda: " is paused after epoch " in running.log.read_text())
        running.wait_for(lambda: sum(num_epochs_reported(folder)) >= 11)
    finally:
        running.kill_everything()
    status = run("status", folder).stdout
    assert "running or paused" in status
    assert re.search(r"budget +1\d of 26 epochs", status)
    run(*command, "--resume", program=TRAIN_ONLY)
    trials = load_trials(folder)
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    lengths = {trial.number: len(trial.intermediate_values) for trial in trials}
    assert 26 - 6 < sum(lengths.values()) <= 26
    begun = 0
    for trial in trials:
        assert (trial.state == TrialState.COMPLETE) == (lengths[trial.number] == 6)
        assert {"config", "hostname", "diagnosis", "end_reason"} <= trial.user_attrs.keys()
        assert len(load_epochs(folder, trial.number)) == lengths[trial.number]
        attempts = (folder / "trials" / str(trial.number) / "attempts.csv").read_text()
        begun += len(attempts.splitlines()) - 1
    assert begun <= sum(lengths.values()) + 1  # resumed trials repeat no epochs
    taken, total = json.loads(run("status", folder, "--json").stdout)["budget"]["total_epochs"]
    assert taken == begun <= total
    result = json.loads(run("simulate", folder, "--json").stdout)
    best = max(trials, key=lambda t: (t.state == TrialState.COMPLETE, t.value, -t.number))
    assert (result["best_trial"], result["best_value"]) == (best.number, best.value)
    assert (result["num_epochs"], result["share_recorded"]) == (sum(lengths.values()), 1.0)
    assert "asha with tpe, 8 at a time" in run(
        "simulate", folder, "--slots", 8, "--scheduler", "asha"
    ).stdout  # fmt: skip


@pytest.fixture
def short_search(image_folder: Path, tmp_path: Path) -> Path:
    """A search file of one trial of one epoch; the image cache lies at its default place."""
    values = search_values(image_folder, tmp_path)
    values["study"] = {"num_trials": 1}
    values["train"]["max_epochs"] = 1
    values["train"]["data"]["num_workers"] = 1  # a loader has a socket, too
    del values["train"]["data"]["cache_dir"]
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_temporary_folder_may_have_a_long_path(short_search: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 75)
    long.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    command = (short_search, "--output-dir", tmp_path / "runs")
    run(*command, program=TRAIN_ONLY, TMPDIR=str(long), HOME=str(home))
    (trial,) = load_trials(tmp_path / "runs" / "short")
    assert trial.state == TrialState.COMPLETE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a program as another user")
def test_a_user_without_a_name_and_a_home_may_search(short_search: Path) -> None:
    # Not in pytest's folder, which only its owner may enter; capabilities let the user read code.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        as_nobody = (
            "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
            "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
            "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "PYTHONDONTWRITEBYTECODE=1",
        )  # fmt: skip
        command = (short_search, "--output-dir", folder / "runs")
        run(*command, program=(*as_nobody, *TRAIN_ONLY), TMPDIR=name)
        (trial,) = load_trials(folder / "runs" / "short")
        assert trial.state == TrialState.COMPLETE
        assert any((folder / "sgformer-cache-12345").glob("*/pixels.bin"))
