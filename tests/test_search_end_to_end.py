"""Tests of one finished search, run as a user runs it, with a real Ray and real images."""

import csv
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import cv2
import huggingface_hub
import numpy as np
import onnx
import pytest
import yaml
from command_line import (
    environment_of_a_test,
    fresh_trainings,
    load_epochs,
    load_trials,
    run,
    study_attributes,
)
from optuna.trial import TrialState
from searches import DIVERGING, FinishedSearch

import hpo
from hpo import open_run
from hpo.delivery.classify import open_model
from hpo.study.trial import TrialStatus

DEFAULT = {"optimizer.learning_rate": 2e-3, "model.drop_rate": 0.1}


def test_nothing_listens_beyond_loopback(finished: FinishedSearch) -> None:
    assert finished.listened_at == {"127.0.0.1"}


def test_every_trial_is_told_as_what_it_was(finished: FinishedSearch) -> None:
    trials = load_trials(finished.folder)
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


def test_curves_are_whole_to_the_last_epoch(finished: FinishedSearch) -> None:
    for trial in load_trials(finished.folder):
        if trial.state == TrialState.FAIL:
            continue
        rows = load_epochs(finished.folder, trial.number)
        assert list(trial.intermediate_values) == list(range(1, len(rows) + 1))
        for row, value in zip(rows, trial.intermediate_values.values(), strict=True):
            told = float(row["val_top1"])
            assert told == value or (math.isnan(told) and math.isnan(value))


def test_trials_record_what_they_ran_with(finished: FinishedSearch) -> None:
    attributes = load_trials(finished.folder)[0].user_attrs
    assert attributes["num_parameters"] == 119_800
    assert attributes["num_epochs"] == 4
    assert attributes["hostname"] == socket.gethostname()
    assert attributes["num_epochs_trained"] == 4
    with_checkpoints = list((finished.folder / "trials").glob("*/best.safetensors"))
    complete = [t for t in load_trials(finished.folder) if t.state == TrialState.COMPLETE]
    assert len(with_checkpoints) == min(3, len(complete))
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    assert Path(best.user_attrs["checkpoint"]) in with_checkpoints
    assert attributes["seconds"] > 0
    assert attributes["micro_batch_size"] == 20
    (finding,) = load_trials(finished.folder)[1].user_attrs["diagnosis"]
    assert finding["tag"] == "diverged"
    assert "optimizer.learning_rate" in finding["remedy"]
    page = (finished.folder / "report.html").read_text()
    assert "<h3>Diagnosis</h3>" in page
    assert "Let the search go on" not in page
    assert "<td>diverged</td><td><a href='#trial-1'>1</a>" in page


def test_the_run_folder_is_as_the_contract_says(finished: FinishedSearch) -> None:
    folder = finished.folder
    # SQLite has further files as long as anybody reads the study.
    hidden = (".", "study.db-")
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(hidden)}
    assert visible == {
        "search.yaml", "study.db", "trials", "leaderboard.csv", "report.html", "best",
    }  # fmt: skip
    assert {path.name for path in (folder / "best").iterdir()} == {
        "config.yaml", "checkpoint.safetensors", "metrics.json", "model.onnx", "export.json",
        "classes.json", "model.uint8.onnx", "MODEL_CARD.md", "pictures.json", "exemplars",
    }  # fmt: skip
    files = {path.name for path in (folder / "trials").glob("*/[!.]*")}
    assert files == {"best.safetensors", "last.safetensors", "epochs.csv", "attempts.csv"}


def test_metrics_and_export_are_as_the_contract_says(finished: FinishedSearch) -> None:
    best = finished.folder / "best"
    metrics = json.loads((best / "metrics.json").read_text())
    assert set(metrics) == {"val", "test"}
    assert set(metrics["test"]) == {
        "top1", "top5", "macro_f1", "loss", "per_class", "confusion_matrix", "most_confused",
        "calibration", "num_images",
    }  # fmt: skip
    assert metrics["test"]["num_images"] == 20
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 20
    report = json.loads((best / "export.json").read_text())["model.onnx"]
    assert set(report) == {
        "bytes", "sha256", "opset", "input", "output", "parity", "top1", "num_images",
        "latency_ms",
    }  # fmt: skip
    assert report["num_images"] == 30
    assert report["parity"]["argmax_agreement"] == 1.0
    assert abs(report["top1"] - metrics["val"]["top1"]) < 1.5 / 30
    assert json.loads((best / "classes.json").read_text()) == [str(d) for d in range(10)]
    assert onnx.load(best / "model.onnx").graph.input[0].name == "input"


def test_the_leaderboard_has_every_trial_the_winner_first(finished: FinishedSearch) -> None:
    rows = list(csv.DictReader((finished.folder / "leaderboard.csv").open()))
    assert {int(row["number"]) for row in rows} == set(range(8))
    values = [float(row["val_top1"]) for row in rows[1:] if row["state"] == "COMPLETE"]
    assert values == sorted(values, reverse=True)
    assert rows[-1]["state"] == "FAIL"
    means = {int(row["number"]): row["mean_on_fresh_seeds"] for row in rows}
    known = {number: float(mean) for number, mean in means.items() if mean}
    assert known[int(rows[0]["number"])] == max(known.values())


def test_finalists_are_compared_on_fresh_seeds(finished: FinishedSearch) -> None:
    folder = finished.folder
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
    assert f"trial {winner}, val_top1 {means[winner]:.4f} (" in finished.out
    assert re.search(r"gain +(none: |\+0\.\d+ \(.*\) over the default: )", finished.out)
    assert finished.err.count(" on seed ") == len(trainings)
    config = yaml.safe_load((folder / "best" / "config.yaml").read_text())
    params = load_trials(folder)[winner].params
    assert (config["seed"], config["model"]["drop_rate"]) == (1, params["model.drop_rate"])
    assert not (folder / ".retraining").exists()
    told = json.loads(run("status", folder, "--json").stdout)["winner"]
    assert (told["number"], told["num_seeds"]) == (winner, 2)
    assert ">Finalists</h2>" in (folder / "report.html").read_text()


def test_the_output_shows_progress_and_the_result(finished: FinishedSearch) -> None:
    assert "trial 0 starts: learning_rate=0.002 drop_rate=0.1" in finished.err
    assert "trial 1 PRUNED after epoch 1 (diverged)" in finished.err
    assert "trial 2 FAIL after epoch 0 (CheckpointError: cannot read checkpoint" in finished.err
    assert "retraining trial" in finished.err
    for text in ("winner", "model.drop_rate", "val top-1", "test top-1", "model.onnx", "report"):
        assert text in finished.out
    assert "Traceback" not in finished.out + finished.err


def test_a_finished_run_is_not_run_again(finished: FinishedSearch) -> None:
    folder = finished.folder
    files = [folder / "best" / name for name in ("model.onnx", "metrics.json")]
    before = [file.stat().st_mtime_ns for file in files]
    refused = run("search", finished.search_file, "--output-dir", folder.parent, expect=2)
    assert "study 'digits' exists already" in refused.stderr
    assert "--resume" in refused.stderr
    shown = run("search", finished.search_file, "--output-dir", folder.parent, "--resume")
    assert shown.stdout == finished.out
    assert [file.stat().st_mtime_ns for file in files] == before  # test is not evaluated again


def test_a_finished_run_is_copied_to_a_url_with_what_is_retrained(
    finished: FinishedSearch, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "runs" / "digits"))
    url, copy = (tmp_path / "delivered").as_uri(), tmp_path / "delivered" / "digits"
    shown = run(
        "search", finished.search_file, "--output-dir", folder.parent, "--resume",
        "--set", f"study.deliver_to={url}",
    )  # fmt: skip
    assert re.search(rf"^copied to +{url}/digits$", shown.stdout, re.MULTILINE)
    assert sorted(path.name for path in copy.iterdir()) == [
        "best", "leaderboard.csv", "report.html", "search.yaml",
    ]  # fmt: skip

    def models() -> list[bytes]:
        return [(place / "best" / "model.onnx").read_bytes() for place in (folder, copy)]

    (first, first_copy) = models()
    finalist = max(training["trial"] for training in fresh_trainings(folder).values())
    run("retrain", folder, "--trial", finalist)
    second, second_copy = models()
    assert (first, second) == (first_copy, second_copy)
    assert first != second


def test_a_finished_run_that_is_to_show_no_images_loses_its_pictures(
    finished: FinishedSearch, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "runs" / "digits"))
    best = folder / "best"
    files = [best / name for name in ("model.onnx", "metrics.json", "pictures.json")]
    before, _, pictures = [file.read_bytes() for file in files]
    assert str(finished.root) not in pictures.decode()
    command = ("search", finished.search_file, "--output-dir", folder.parent, "--resume")
    run(*command, "--set", "report.images=false")
    assert [file.exists() for file in files] == [True, True, False]
    assert files[0].read_bytes() == before
    assert yaml.safe_load((folder / "search.yaml").read_text())["report"] == {"images": False}


def test_a_resume_that_would_make_trials_incomparable_is_refused(finished: FinishedSearch) -> None:
    refused = run(
        "search", finished.search_file, "--output-dir", finished.folder.parent, "--resume",
        "--set", "train.label_smoothing=0.3", expect=2,
    )  # fmt: skip
    assert "train.label_smoothing: 0.1 -> 0.3" in refused.stderr


def test_status_tells_where_the_run_is(finished: FinishedSearch) -> None:
    folder = finished.folder
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
    finished: FinishedSearch, image_folder: Path, split: str
) -> None:
    model = finished.folder / "best" / "model.onnx"
    command = ("evaluate", model, "--data-dir", image_folder, "--split", split)
    measured = json.loads(run(*command, "--json").stdout)
    expected = json.loads((finished.folder / "best" / "metrics.json").read_text())[split]
    assert set(measured) == {*expected, "notes"}
    assert abs(measured["top1"] - expected["top1"]) * expected["num_images"] <= 1
    assert measured["num_images"] == expected["num_images"]
    if split == "test":
        assert f"{measured['top1']:.4f}" in run(*command).stdout


def test_predict_names_likely_classes(finished: FinishedSearch, image_folder: Path) -> None:
    images = [image_folder / "train" / d / "0.png" for d in "17"]
    lines = run("predict", finished.folder / "best" / "model.onnx", *images).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(path) for path in images]
    assert all(len(line.split(",")) == 3 for line in lines)


def test_export_and_report_can_be_repeated(finished: FinishedSearch, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "digits"))
    for name in ("best/model.onnx", "best/export.json", "report.html", "leaderboard.csv"):
        (folder / name).unlink()
    run("export", folder)
    assert json.loads((folder / "best" / "export.json").read_text())["model.onnx"]["opset"] >= 18
    run("report", folder)
    assert "<table>" in (folder / "report.html").read_text()
    assert (folder / "leaderboard.csv").exists()


def test_any_trial_can_be_retrained(finished: FinishedSearch, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "digits"))
    finalist = max(training["trial"] for training in fresh_trainings(folder).values())
    trial = load_trials(folder)[finalist]  # the trial's own checkpoint is gone
    run("retrain", folder, "--trial", trial.number)
    config = yaml.safe_load((folder / "best" / "config.yaml").read_text())
    assert config["model"]["drop_rate"] == trial.params["model.drop_rate"]
    assert config["seed"] == 1
    assert f"best (trial {trial.number})" in run("status", folder).stdout
    # The winner's was a finalist's; an evaluation trains no epoch.
    (retraining,) = [r for r in study_attributes(folder)["retrainings"] if r["num_epochs"]]
    assert (retraining["trial"], retraining["num_epochs"]) == (trial.number, config["max_epochs"])
    assert retraining["seconds"] > 0
    refused = run("retrain", folder, "--trial", 99, expect=2)
    assert "no trial 99; the study has 0 to 7" in refused.stderr


@pytest.mark.parametrize("name", ["load_search_config", "run_search", "open_run"])
def test_the_example_of_the_docstring_runs(finished: FinishedSearch, name: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", getattr(hpo, name).__doc__, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", dedent(example)],
        check=False, capture_output=True, text=True, cwd=finished.root,
        env=environment_of_a_test(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if name != "load_search_config":
        assert "best/model.onnx" in done.stdout


def test_a_finished_run_is_opened_with_all_that_the_search_has_found(
    finished: FinishedSearch,
) -> None:
    run = open_run(finished.folder)
    assert run.is_complete
    assert [trial.number for trial in run.trials] == list(range(8))
    assert len(load_trials(finished.folder)) == 8
    assert run.trials[2].state == TrialStatus.FAIL
    assert run.verdict is not None
    assert run.winner == run.delivered == run.trials[run.verdict.winner]
    assert run.best is not None
    assert run.front == (run.best,)
    complete = [t.value for t in run.trials if t.value is not None]
    assert run.best_value == max(complete)
    files = run.files
    assert {
        files.onnx, files.uint8, files.checkpoint, files.config, files.classes, files.metrics,
        files.export_report, files.card, files.pictures, files.exemplars,
    } == set(run.folder.best.iterdir())  # fmt: skip
    assert f"trial {run.winner.number}, " in finished.out


@pytest.fixture
def card(finished: FinishedSearch) -> huggingface_hub.ModelCard:
    return huggingface_hub.ModelCard.load(finished.folder / "best" / "MODEL_CARD.md")


def test_the_card_has_the_metrics_in_its_front_matter(
    card: huggingface_hub.ModelCard, finished: FinishedSearch
) -> None:
    metrics = json.loads((finished.folder / "best" / "metrics.json").read_text())
    assert card.data.model_name == "digits"
    assert card.data.pipeline_tag == "image-classification"
    found = {
        (result.dataset_split, result.metric_name): result.metric_value
        for result in card.data.eval_results or []
    }
    assert found["val", "top1"] == round(metrics["val"]["top1"], 4)
    assert found["test", "macro_f1"] == round(metrics["test"]["macro_f1"], 4)
    assert {name for _, name in found} == {"top1", "top5", "macro_f1"}


def test_the_card_says_how_good_the_model_is_and_how_it_was_chosen(
    card: huggingface_hub.ModelCard, finished: FinishedSearch
) -> None:
    metrics = json.loads((finished.folder / "best" / "metrics.json").read_text())
    (row,) = re.findall(r"\| test \| 20 \| (\S+) \((\S+) to (\S+)\) \|", card.text)
    top1, low, high = map(float, row)
    assert top1 == round(metrics["test"]["top1"], 4)
    assert low < top1 <= high
    assert "8 configurations were tried" in card.text
    assert "on 2 fresh seeds" in card.text
    assert "Gain: " in card.text


def test_the_card_names_no_place_of_this_machine(finished: FinishedSearch) -> None:
    text = (finished.folder / "best" / "MODEL_CARD.md").read_text()
    assert str(finished.root) not in text
    assert str(Path.home()) not in text
    (training,) = re.findall(r"## Training\n\n```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert yaml.safe_load(training)["model"]["name"] == "sg_former_pico"


@pytest.mark.parametrize(
    ("language", "program", "packages"),
    [
        ("python", (sys.executable, "-c"), ()),
        # Downloads 300 MB.
        pytest.param(
            "javascript", ("node", "-e"), ("onnxruntime-node", "sharp"), marks=pytest.mark.slow
        ),
    ],
)
def test_the_cards_code_says_what_predict_says(
    card: huggingface_hub.ModelCard, finished: FinishedSearch, tmp_path: Path, language: str,
    program: tuple[str, ...], packages: tuple[str, ...],
) -> None:  # fmt: skip
    best = finished.folder / "best"
    for name in ("classes.json", "model.uint8.onnx"):
        (tmp_path / name).symlink_to(best / name)
    digit = next((finished.root / "digits" / "test").glob("7/*"))
    pixels = cv2.imread(str(digit))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "image.jpg"), np.asarray(cv2.resize(pixels, (90, 70))))
    if packages:
        cpu_only = {"ONNXRUNTIME_NODE_INSTALL": "skip"}  # else its install script fetches CUDA's
        command = ["npm", "install", "--prefix", str(tmp_path), *packages]
        subprocess.run(command, env=os.environ | cpu_only, check=True)
    (code,) = re.findall(rf"```{language}\n(.*?)```", card.text, flags=re.DOTALL)
    done = subprocess.run(
        [*program, code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.split()
    said = open_model(best / "model.onnx").predict(tmp_path / "image.jpg").classes
    assert name == next(iter(said))
    assert float(probability) == pytest.approx(said[name], abs=0.01)


@pytest.mark.parametrize("command", ["status", "report"])
def test_what_reads_a_run_needs_neither_torch_nor_ray(
    finished: FinishedSearch, command: str
) -> None:
    program = (
        f"import sys; sys.argv = ['x', '{command}', sys.argv[1]]\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        "finally: print('loaded:', [m for m in ('torch', 'ray', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(finished.folder)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout


def test_a_runs_files_are_compared_on_its_val_images(finished: FinishedSearch) -> None:
    said = json.loads(run("benchmark", finished.folder, "--json").stdout)
    assert list(said["files"]) == ["pytorch", "onnx", "uint8"]
    for found in said["files"].values():
        assert found["low"] <= found["top1"] <= found["high"]
        assert found["class_agreement"] >= 0.98
        assert set(found["latency_ms"]) == {"1", "8"}
        assert found["images_per_second"] > 0
    best = finished.folder / "best"
    assert said["files"]["onnx"]["bytes"] == (best / "model.onnx").stat().st_size
    table = run("benchmark", finished.folder, "--max-images", 8).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["format", "pytorch", "onnx", "uint8"]


def test_each_file_is_evaluated_alike(finished: FinishedSearch) -> None:
    best, images = finished.folder / "best", finished.root / "digits"
    metrics = json.loads((best / "metrics.json").read_text())["test"]
    for name in ("model.onnx", "model.uint8.onnx"):
        shown = run("evaluate", best / name, "--data-dir", images, "--json").stdout
        found = json.loads(shown)
        assert found["top1"] == metrics["top1"]
        assert math.isclose(found["loss"], metrics["loss"], rel_tol=1e-2)
