"""The whole job with a real Ray, two slots and real images, as a user runs it."""

import csv
import fcntl
import json
import math
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import optuna
import pytest
import yaml
from command_line import PROGRAM, Background, load_epochs, load_trials, run
from optuna.trial import TrialState
from searches import search_values

DEFAULT = {"optimizer.learning_rate": 2e-3, "model.drop_rate": 0.1}
DIVERGING = {"optimizer.learning_rate": 1e30, "model.drop_rate": 0.1}


def write_search(path: Path, image_folder: Path, cache_dir: Path, **changes: dict) -> Path:
    values = search_values(image_folder, cache_dir)
    values["study"] = {"num_trials": 8, "enqueue": [DIVERGING]}
    values["space"]["optimizer.learning_rate"] = {
        "type": "categorical",
        "choices": [2e-3, 1e-4, 1e30],
    }
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def search_file(
    tmp_path_factory: pytest.TempPathFactory, image_folder: Path, cache_dir: Path
) -> Path:
    return write_search(
        tmp_path_factory.mktemp("file") / "tiny.yaml", image_folder, cache_dir,
        retrain={"top_k": 3, "seeds": 2},
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(
    search_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder and the output of a search in which one trial diverges and one breaks."""
    output_dir = tmp_path_factory.mktemp("runs")
    command = [*PROGRAM, "search", str(search_file), "--output-dir", str(output_dir)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (output_dir / "tiny" / "search.yaml").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # The workers are still importing torch: trial 2 will find this.
    broken = output_dir / "tiny" / "trials" / "2" / "last.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("a checkpoint that is none")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return output_dir / "tiny", subprocess.CompletedProcess(command, 0, out, err)


Finished = tuple[Path, subprocess.CompletedProcess]


def test_every_trial_is_told_as_what_it_was(finished: Finished) -> None:
    trials = load_trials(finished[0])
    assert [trial.number for trial in trials] == list(range(8))
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert trials[0].params == DEFAULT
    assert trials[0].state == TrialState.COMPLETE
    assert trials[0].value == max(trials[0].intermediate_values.values())
    assert trials[1].params == DIVERGING
    assert trials[1].state == TrialState.PRUNED
    assert trials[1].user_attrs["end_reason"] == "diverged"
    assert trials[2].state == TrialState.FAIL
    assert trials[2].user_attrs["error"]["type"] == "CheckpointError"
    assert "last.safetensors" in trials[2].user_attrs["error"]["message"]
    for trial in trials[3:]:
        reason = trial.user_attrs["end_reason"]
        whole = trial.state == TrialState.COMPLETE and len(trial.intermediate_values) == 4
        assert whole == (reason == "completed")
        assert whole or (trial.state == TrialState.PRUNED and reason[:7] in {"stopped", "diverge"})


def test_curves_are_whole_to_the_last_epoch(finished: Finished) -> None:
    for trial in load_trials(finished[0]):
        if trial.state == TrialState.FAIL:
            continue
        rows = load_epochs(finished[0], trial.number)
        assert list(trial.intermediate_values) == list(range(1, len(rows) + 1))
        for row, value in zip(rows, trial.intermediate_values.values(), strict=True):
            told = float(row["val_top1"])
            assert told == value or (math.isnan(told) and math.isnan(value))


def test_trials_record_what_they_ran_with(finished: Finished) -> None:
    attributes = load_trials(finished[0])[0].user_attrs
    assert attributes["num_parameters"] == 119_800
    assert attributes["num_epochs"] == 4
    assert attributes["hostname"] == socket.gethostname()
    assert attributes["num_epochs_trained"] == 4
    with_checkpoints = list((finished[0] / "trials").glob("*/best.safetensors"))
    complete = [t for t in load_trials(finished[0]) if t.state == TrialState.COMPLETE]
    assert len(with_checkpoints) == min(3, len(complete))
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    assert Path(best.user_attrs["checkpoint"]) in with_checkpoints
    assert attributes["seconds"] > 0
    assert attributes["micro_batch_size"] == 20
    (finding,) = load_trials(finished[0])[1].user_attrs["diagnosis"]
    assert finding["tag"] == "diverged"
    assert "optimizer.learning_rate" in finding["remedy"]
    page = (finished[0] / "report.html").read_text()
    assert "<h2>Diagnosis</h2>" in page
    assert "<td>diverged</td><td>1" in page


def test_the_run_folder_is_as_the_contract_says(finished: Finished) -> None:
    folder = finished[0]
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {
        "search.yaml", "study.db", "trials", "leaderboard.csv", "report.html", "best",
    }  # fmt: skip
    assert {path.name for path in (folder / "best").iterdir()} == {
        "config.yaml", "checkpoint.safetensors", "metrics.json", "model.onnx", "export.json",
        "classes.json",
    }  # fmt: skip
    files = {path.name for path in (folder / "trials").glob("*/*")}
    assert files == {"best.safetensors", "last.safetensors", "epochs.csv", "attempts.csv"}


def test_metrics_and_export_are_as_the_contract_says(finished: Finished) -> None:
    best = finished[0] / "best"
    metrics = json.loads((best / "metrics.json").read_text())
    assert set(metrics) == {"val", "test"}
    assert set(metrics["test"]) == {
        "top1", "top5", "macro_f1", "loss", "per_class", "confusion_matrix", "num_images",
    }  # fmt: skip
    assert metrics["test"]["num_images"] == 20
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 20
    report = json.loads((best / "export.json").read_text())["model.onnx"]
    assert set(report) == {"bytes", "opset", "input", "parity", "top1", "latency_ms"}
    assert report["parity"]["argmax_agreement"] == 1.0
    assert abs(report["top1"] - metrics["val"]["top1"]) < 1.5 / 30
    assert json.loads((best / "classes.json").read_text()) == [str(d) for d in range(10)]
    assert onnx.load(best / "model.onnx").graph.input[0].name == "input"


def test_the_leaderboard_has_every_trial_the_winner_first(finished: Finished) -> None:
    rows = list(csv.DictReader((finished[0] / "leaderboard.csv").open()))
    assert {int(row["number"]) for row in rows} == set(range(8))
    values = [float(row["val_top1"]) for row in rows[1:] if row["state"] == "COMPLETE"]
    assert values == sorted(values, reverse=True)
    assert rows[-1]["state"] == "FAIL"
    means = {int(row["number"]): row["mean_on_fresh_seeds"] for row in rows}
    known = {number: float(mean) for number, mean in means.items() if mean}
    assert known[int(rows[0]["number"])] == max(known.values())


def fresh_trainings(folder: Path) -> dict[str, dict]:
    """The finalists' trainings, by name, as the study has them."""
    attributes = study_attributes(folder)
    return {k: v for k, v in attributes.items() if k.startswith("fresh_training:")}


def study_attributes(folder: Path) -> dict[str, Any]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    try:
        return optuna.load_study(study_name=folder.name, storage=storage).user_attrs
    finally:
        storage.engine.dispose()


def test_finalists_are_compared_on_fresh_seeds(finished: Finished) -> None:
    folder, done = finished
    trainings = list(fresh_trainings(folder).values())
    complete = {t.number for t in load_trials(folder) if t.state == TrialState.COMPLETE}
    numbers = {training["trial"] for training in trainings}
    assert 0 in numbers <= complete
    assert len(numbers) in {min(3, len(complete)), min(4, len(complete))}
    assert Counter(training["seed"] for training in trainings) == {
        1: len(numbers),
        2: len(numbers),
    }
    assert all(training["num_epochs"] == 4 for training in trainings)
    means = {n: sum(t["value"] for t in trainings if t["trial"] == n) / 2 for n in numbers}
    winner = max(sorted(means), key=lambda n: round(means[n], 9))
    assert f"trial {winner}, val_top1 {means[winner]:.4f} (" in done.stdout
    assert re.search(r"gain +(none: |\+0\.\d+ \(.*\) over the default: )", done.stdout)
    assert done.stderr.count(" on seed ") == len(trainings)
    config = yaml.safe_load((folder / "best" / "config.yaml").read_text())
    params = load_trials(folder)[winner].params
    assert (config["seed"], config["model"]["drop_rate"]) == (1, params["model.drop_rate"])
    assert not (folder / ".retraining").exists()
    told = json.loads(run("status", folder, "--json").stdout)["winner"]
    assert (told["number"], told["num_seeds"]) == (winner, 2)
    assert "<h2>Finalists</h2>" in (folder / "report.html").read_text()


def test_the_output_shows_progress_and_the_result(finished: Finished) -> None:
    done = finished[1]
    assert "trial 0 starts: learning_rate=0.002 drop_rate=0.1" in done.stderr
    assert "trial 1 PRUNED after epoch 1 (diverged)" in done.stderr
    assert "trial 2 FAIL after epoch 0 (CheckpointError: cannot read checkpoint" in done.stderr
    assert "retraining trial" in done.stderr
    for text in ("winner", "model.drop_rate", "val top-1", "test top-1", "model.onnx", "report"):
        assert text in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_finished_run_is_not_run_again(finished: Finished, search_file: Path) -> None:
    folder, first = finished
    files = [folder / "best" / name for name in ("model.onnx", "metrics.json")]
    before = [file.stat().st_mtime_ns for file in files]
    refused = run("search", search_file, "--output-dir", folder.parent, expect=2)
    assert "study 'tiny' exists already" in refused.stderr
    assert "--resume" in refused.stderr
    shown = run("search", search_file, "--output-dir", folder.parent, "--resume")
    assert shown.stdout == first.stdout
    assert [file.stat().st_mtime_ns for file in files] == before  # test is not looked at again


def test_a_resume_that_would_make_trials_incomparable_is_refused(
    finished: Finished, search_file: Path
) -> None:
    refused = run(
        "search", search_file, "--output-dir", finished[0].parent, "--resume",
        "--set", "train.label_smoothing=0.3", expect=2,
    )  # fmt: skip
    assert "train.label_smoothing: 0.1 -> 0.3" in refused.stderr


def test_status_tells_where_the_run_is(finished: Finished) -> None:
    folder = finished[0]
    text = run("status", folder).stdout
    assert "8 of 8 started" in text
    values = json.loads(run("status", folder, "--json").stdout)
    states = Counter(trial.state.name for trial in load_trials(folder))
    assert values["counts"] == dict(states)
    assert values["delivered"] is True
    assert values["best"]["value"] == max(
        trial.value for trial in load_trials(folder) if trial.state == TrialState.COMPLETE
    )


@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluate_gives_the_runs_metrics(
    finished: Finished, image_folder: Path, split: str
) -> None:
    model = finished[0] / "best" / "model.onnx"
    command = ("evaluate", model, "--data-dir", image_folder, "--split", split)
    measured = json.loads(run(*command, "--json").stdout)
    expected = json.loads((finished[0] / "best" / "metrics.json").read_text())[split]
    assert set(measured) == set(expected)
    assert abs(measured["top1"] - expected["top1"]) * expected["num_images"] <= 1
    assert measured["num_images"] == expected["num_images"]
    assert f"{measured['top1']:.4f}" in run(*command).stdout


def test_predict_names_likely_classes(finished: Finished, image_folder: Path) -> None:
    images = [image_folder / "train" / d / "0.png" for d in "17"]
    lines = run("predict", finished[0] / "best" / "model.onnx", *images).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(path) for path in images]
    assert all(len(line.split(",")) == 3 for line in lines)


def test_export_and_report_can_be_repeated(finished: Finished, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "tiny"))
    for name in ("best/model.onnx", "best/export.json", "report.html", "leaderboard.csv"):
        (folder / name).unlink()
    run("export", folder)
    assert json.loads((folder / "best" / "export.json").read_text())["model.onnx"]["opset"] >= 18
    run("report", folder)
    assert "<table>" in (folder / "report.html").read_text()
    assert (folder / "leaderboard.csv").exists()


def test_any_trial_can_be_retrained(finished: Finished, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "tiny"))
    finalist = max(training["trial"] for training in fresh_trainings(folder).values())
    trial = load_trials(folder)[finalist]  # its checkpoint as one is gone
    run("retrain", folder, "--trial", trial.number)
    config = yaml.safe_load((folder / "best" / "config.yaml").read_text())
    assert config["model"]["drop_rate"] == trial.params["model.drop_rate"]
    assert config["seed"] == 1
    assert f"best (trial {trial.number})" in run("status", folder).stdout
    (retraining,) = study_attributes(folder)["retrainings"]  # that of the winner was a finalist's
    assert (retraining["trial"], retraining["num_epochs"]) == (trial.number, config["max_epochs"])
    assert retraining["seconds"] > 0
    refused = run("retrain", folder, "--trial", 99, expect=2)
    assert "no trial 99; the study has 0 to 7" in refused.stderr


def test_a_terminal_shows_a_live_table(search_file: Path, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, "search", str(search_file), "--output-dir", str(tmp_path),
         "--set", "study.num_trials=2", "--set", "study.enqueue=[]", "--set", "retrain.seeds=0",
         "--set", "train.max_epochs=40", "--set", "train.early_stopping.patience=null"],
        stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # the terminal's other end is closed
        pass
    assert process.wait() == 0, shown.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for expected in ("starting 2 workers", "trial  epoch  latest", "winner", "test top-1"):
        assert expected in text
    assert re.search(r"\d/40", text)
    assert "Traceback" not in text


@pytest.fixture
def long_search(tmp_path: Path, image_folder: Path, cache_dir: Path) -> Path:
    """Four trials of twelve epochs, none of which the scheduler stops."""
    return write_search(
        tmp_path / "long.yaml", image_folder, cache_dir,
        study={"num_trials": 4, "enqueue": []}, scheduler={"name": "none"},
        space={"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
    )  # fmt: skip


LONG = ("--set", "train.max_epochs=12", "--set", "train.early_stopping.patience=null")


def num_epochs_reported(folder: Path) -> list[int]:
    if not (folder / "search.yaml").exists():  # the study is there before it
        return []
    return [len(trial.intermediate_values) for trial in load_trials(folder)]


@pytest.mark.parametrize("how", ["kill", "SIGINT", "SIGTERM"])
def test_an_interrupted_search_goes_on_where_it_was(
    long_search: Path, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "runs" / "long"
    command = ("search", long_search, "--output-dir", folder.parent, *LONG)
    running = Background(*command, log=tmp_path / "log")
    try:
        running.wait_for(lambda: sum(n >= 3 for n in num_epochs_reported(folder)) >= 2)
        if how == "kill":
            running.kill_everything()
        else:
            running.process.send_signal(getattr(signal, how))
            assert running.process.wait(60) == 1
            assert "--resume" in running.log.read_text()
            assert "Traceback" not in running.log.read_text()
    finally:
        running.kill_everything()
    before = {n: load_epochs(folder, n) for n in range(4)}
    left = [trial.number for trial in load_trials(folder) if trial.state == TrialState.RUNNING]
    assert left
    if how == "SIGTERM":
        return  # it ended as on SIGINT; one resume of that kind is enough
    done = run(*command, "--resume")
    assert all(f"trial {n} continues after epoch" in done.stderr for n in left)
    trials = load_trials(folder)
    assert [(t.number, t.state.name) for t in trials] == [(n, "COMPLETE") for n in range(4)]
    for trial in trials:
        rows = load_epochs(folder, trial.number)
        assert list(trial.intermediate_values) == list(range(1, 13))
        # What was trained is not trained again: even its times are the old ones.
        assert rows[: len(before[trial.number])] == before[trial.number]
    assert (folder / "best" / "metrics.json").exists()


def test_a_killed_comparison_goes_on_and_more_seeds_add_to_it(
    own_image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_image_folder / "val")  # so each seed splits its own off train
    search_file = write_search(
        tmp_path / "few.yaml", own_image_folder, cache_dir,
        study={"num_trials": 3, "enqueue": []}, retrain={"top_k": 2, "seeds": 3},
        scheduler={"name": "freeze_thaw"},
        space={"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
    )  # fmt: skip
    folder = tmp_path / "runs" / "few"
    command = ("search", search_file, "--output-dir", folder.parent)
    running = Background(*command, log=tmp_path / "log")
    try:
        running.wait_for(lambda: " on seed " in running.log.read_text())
    finally:
        running.kill_everything()
    before = fresh_trainings(folder)
    assert 1 <= len(before) < 9
    status = run("status", folder).stdout
    assert re.search(r"finalists +\d of [69] trainings on fresh seeds have ended", status)
    assert "winner" not in status
    run(*command, "--resume")
    after = fresh_trainings(folder)
    assert len(after) in {6, 9}  # without the default among the best two, it is the third
    assert after.items() >= before.items()  # seconds included: nothing was trained again
    assert Counter(t["seed"] for t in after.values()).keys() == {1, 2, 3}
    more = run(*command, "--resume", "--set", "retrain.seeds=4")
    assert "on seed 4" in more.stderr
    assert "on seed 3" not in more.stderr
    assert "on 4 fresh seeds" in more.stdout
    assert fresh_trainings(folder).items() > after.items()
    few = ("--resume", "--set", "retrain.seeds=4", "--set", "study.num_trials=9")
    idle = run(*command, *few, "--set", "budget.total_epochs=52")
    assert "no trial was begun: the budget leaves no room" in idle.stderr
    assert len(load_trials(folder)) == 3
    run(*command, "--resume", "--set", "retrain.seeds=1", "--set", "study.num_trials=6")
    assert len(load_trials(folder)) > 3


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(
    long_search: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "long"
    running = Background(
        "search", long_search, "--output-dir", folder.parent, *LONG, log=tmp_path / "log"
    )

    def workers() -> list[int]:
        return [pid for pid, name in running.descendants().items() if "ray::Resource" in name]

    try:
        running.wait_for(lambda: max(num_epochs_reported(folder), default=0) >= 3)
        running.wait_for(lambda: len(workers()) == 2)  # one may have been slow to start
        os.kill(workers()[0], signal.SIGKILL)
        assert running.process.wait(240) == 0, running.log.read_text()
    finally:
        running.kill_everything()
    for trial in load_trials(folder):
        assert trial.state == TrialState.COMPLETE
        assert list(trial.intermediate_values) == list(range(1, 13))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_pauses_the_search(search_file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        command = ("search", search_file, "--output-dir", disk)
        full = run(*command, expect=1)
        assert re.search(r"no space left on the disk of .*; free some, then go on", full.stderr)
        assert "Traceback" not in full.stderr
        before = {t.number: t.state.name for t in load_trials(disk / "tiny")}
        assert "RUNNING" in before.values()
        assert "FAIL" not in before.values()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        run(*command, "--resume")
        trials = load_trials(disk / "tiny")
        assert {t.state.name for t in trials} == {"COMPLETE", "PRUNED"}
        assert [t.number for t in trials] == list(range(8))
        assert (disk / "tiny" / "best" / "export.json").exists()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_paused_trials_outlive_a_kill_and_simulate_decides_the_same(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "thaw.yaml", image_folder, cache_dir,
        study={"num_trials": 9, "enqueue": []}, scheduler={"name": "freeze_thaw"},
        resources={"max_concurrent_trials": 1}, budget={"total_epochs": 26},
        space={"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
        retrain={"max_epochs": 1},
    )  # fmt: skip
    folder = tmp_path / "runs" / "thaw"
    command = ("search", search_file, "--output-dir", folder.parent, "--set", "train.max_epochs=6")
    running = Background(*command, log=tmp_path / "log")
    try:
        running.wait_for(lambda: " is paused after epoch " in running.log.read_text())
        running.wait_for(lambda: sum(num_epochs_reported(folder)) >= 11)
    finally:
        running.kill_everything()
    status = run("status", folder).stdout
    assert "running or paused" in status
    assert re.search(r"budget +1\d of 26 epochs", status)
    run(*command, "--resume")
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
    assert begun <= sum(lengths.values()) + 1  # what was paused is not trained again
    taken, total = json.loads(run("status", folder, "--json").stdout)["budget"]["total_epochs"]
    (retraining,) = study_attributes(folder)["retrainings"]
    assert taken == begun + retraining["num_epochs"] <= total + 1
    result = json.loads(run("simulate", folder, "--json").stdout)
    best = max(trials, key=lambda t: (t.state == TrialState.COMPLETE, t.value, -t.number))
    assert (result["best_trial"], result["best_value"]) == (best.number, best.value)
    assert (result["num_epochs"], result["share_recorded"]) == (sum(lengths.values()), 1.0)
    assert "asha with tpe, 8 at a time" in run(
        "simulate", folder, "--slots", 8, "--scheduler", "asha"
    ).stdout  # fmt: skip


def test_one_slot_and_one_seed_give_one_study(search_file: Path, tmp_path: Path) -> None:
    studies = []
    for name in ("first", "second"):
        settings = (
            "study.num_trials=5",
            "resources.max_concurrent_trials=1",
            "retrain.max_epochs=1",
            "retrain.seeds=0",
        )
        options = [word for setting in settings for word in ("--set", setting)]
        run("search", search_file, "--output-dir", tmp_path / name, *options)
        trials = load_trials(tmp_path / name / "tiny")
        studies.append([(t.params, repr(t.intermediate_values), t.state, t.value) for t in trials])
    assert len(studies[0]) == 5
    assert studies[0] == studies[1]


def test_a_changed_space_goes_on_in_a_new_study(search_file: Path, tmp_path: Path) -> None:
    settings = ("--set", "retrain.max_epochs=1", "--set", "retrain.seeds=0")
    command = ("search", search_file, "--output-dir", tmp_path, *settings)
    run(*command, "--set", "study.num_trials=4")
    added = "space.model.attn_drop_rate={type: float, low: 0, high: 0.3}"
    resumed = run(*command, "--set", "study.num_trials=6", "--set", added, "--resume")
    assert "study 'tiny-2' goes on, with 4 of the 4 trials of 'tiny'" in resumed.stderr
    old, new = load_trials(tmp_path / "tiny"), load_trials(tmp_path / "tiny-2")
    assert len(new) == 6
    for before, after in zip(old, new, strict=False):
        assert (after.state, after.value) == (before.state, before.value)
        assert repr(after.intermediate_values) == repr(before.intermediate_values)
        assert after.params == {**before.params, "model.attn_drop_rate": 0.0}
    assert (
        "4 of the 4 trials of study tiny were carried over"
        in (tmp_path / "tiny-2" / "report.html").read_text()
    )
    # As if it had been killed before the move was written down: it is finished, not repeated.
    shutil.rmtree(tmp_path / "tiny-2" / "best")
    (tmp_path / "tiny-2" / "search.yaml").unlink()
    again = run(*command, "--set", "study.num_trials=6", "--set", added, "--resume")
    assert str(tmp_path / "tiny-2" / "best") in again.stdout
    assert (tmp_path / "tiny-2" / "search.yaml").exists()
    assert not (tmp_path / "tiny-3").exists()
    assert len(load_trials(tmp_path / "tiny-2")) == 6


def test_two_processes_train_a_trial_and_the_winner(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    resources = {"workers_per_trial": 2, "max_concurrent_trials": None}
    file = write_search(tmp_path / "tiny.yaml", image_folder, cache_dir, resources=resources)
    settings = ("study.num_trials=1", "study.enqueue=[]", "train.max_epochs=2")
    run("search", file, "--output-dir", tmp_path, *(w for s in settings for w in ("--set", s)))
    (trial,) = load_trials(tmp_path / "tiny")
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == [1, 2]
    rows = load_epochs(tmp_path / "tiny", 0)
    assert [float(row["val_top1"]) for row in rows] == list(trial.intermediate_values.values())
    assert (tmp_path / "tiny" / "best" / "export.json").exists()


def test_a_cluster_trains_trials_and_the_winner(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 40)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = str(Path(sys.executable).with_name("ray"))
    options = ("--head", f"--port={port}", "--num-cpus=2", "--block", "--disable-usage-stats")
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(
            [ray, "start", *options, "--include-dashboard=false"],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(300):
            if "runtime started" in (tmp_path / "head.log").read_text():
                break
            assert head.poll() is None, (tmp_path / "head.log").read_text()
            signal.sigtimedwait([], 0.1)
        address = f"127.0.0.1:{port}"
        command = ("search", search_file, "--output-dir", tmp_path, "--set", "study.num_trials=2")
        run(*command, "--ray-address", address)
        assert {t.state.name for t in load_trials(tmp_path / "tiny")} == {"COMPLETE", "PRUNED"}
        assert (tmp_path / "tiny" / "best" / "export.json").exists()
        shutil.rmtree(tmp_path / "tiny" / "best")  # as if it had been killed before the end
        run(*command, "--ray-address", address, "--resume")
        assert (tmp_path / "tiny" / "best" / "export.json").exists()
        refused = run(
            *command, "--study-name", "other", "--ray-address", address, expect=2,
            RAY_AUTH_TOKEN="b" * 40,
        )  # fmt: skip
        assert f"cannot use the Ray cluster at {address}" in refused.stderr
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
