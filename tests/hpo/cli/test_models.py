import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from commands import Call, refused, write_run
from onnx_models import write_classifier
from PIL import Image
from studies import create_study

from hpo.cli import models
from hpo.config.loading import load_search_config
from hpo.run import open_run
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus
from sgformer.errors import InputError
from sgformer.export import packages
from sgformer.export.onnx_classifier import OnnxClassifier

CLASSES = ("café", "a,b", "two\nlines", "007", "no")
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of 32-pixel images by their mean, with class names that are hard to print."""
    return write_classifier(tmp_path_factory.mktemp("model") / "model.onnx", CLASSES)


@pytest.fixture
def images(tmp_path: Path) -> list[bytes]:
    """Two images; the second one's name is not UTF-8."""
    names = [os.fsencode(tmp_path / "first.png"), os.fsencode(tmp_path) + b"/\xff.png"]
    for shade, name in enumerate(names):
        with open(name, "wb") as file:  # noqa: PTH123  pathlib takes no bytes
            Image.new("RGB", (40, 40), (90 * shade, 20, 200)).save(file, format="PNG")
    return names


def predict(model: Path, images: list[bytes], *options: str, encoding: str = "utf-8") -> str:
    command = [sys.executable, "run_search.py", "predict", str(model), *images, *options]
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_the_output_cannot_hold_are_escaped(
    model: Path, images: list[bytes], encoding: str
) -> None:
    lines = predict(model, images, encoding=encoding).splitlines()
    assert len(lines) == 2
    assert "\\udcff.png: " in lines[1]


def test_csv_reads_back(model: Path, images: list[bytes]) -> None:
    text = predict(model, images, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert {row["class"] for row in rows} <= set(CLASSES)
    assert rows[0]["image"] == os.fsdecode(images[0])


def test_json_reads_back_with_every_name_as_it_is(model: Path, images: list[bytes]) -> None:
    found = json.loads(predict(model, images, "--json"))
    assert [os.fsencode(one["image"]) for one in found] == images
    names = {best["class"] for one in found for best in one["classes"]}
    assert names <= set(CLASSES)
    lines = predict(model, images, "--format", "jsonl").splitlines()
    assert list(map(json.loads, lines)) == found


def test_odd_images_are_noted_once_a_kind_or_in_the_json(
    call: Call, model: Path, tmp_path: Path
) -> None:
    seen_through, deep = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(seen_through)
    Image.fromarray(np.full((40, 40), 3000, np.uint16)).save(deep)
    code, out, err = call("predict", model, seen_through, seen_through, deep)
    assert (code, len(out.splitlines())) == (0, 3)
    assert err.splitlines() == [
        "note: 2 images with transparency, laid on the colour 255, 255, 255 "
        f"(train.data.background): {str(seen_through)!r}, and 1 more",
        "note: 1 image of more than 8 bits a channel; the value 65535, or the largest that a PGM "
        f"or PPM declares, becomes 255 (train.data.max_value): {str(deep)!r}",
    ]
    code, out, err = call("predict", model, seen_through, deep, "--json")
    first, second = json.loads(out)
    assert "transparency" in first["notes"][0]
    assert "8 bits" in second["notes"][0]
    assert err == ""


def test_a_long_temporary_folder_is_replaced_for_loader_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DataLoader with worker processes would hang if TMPDIR's path had 75 bytes."""
    long = tmp_path / ("x" * 75)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(long))
    seen = []

    def evaluate(*_: object) -> NoReturn:
        seen.append(tempfile.gettempdir())
        raise InputError("seen")

    monkeypatch.setattr("hpo.delivery.classify.evaluate_exported", evaluate)
    with pytest.raises(InputError, match="seen"):
        models.evaluate(Path("model.onnx"), tmp_path)
    assert len(seen[0]) < 40


def test_wrong_models_images_and_splits_end_with_2(
    call: Call, tmp_path: Path, image_folder: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("text")
    data = ("--data-dir", image_folder)
    assert f"not an ONNX model: {path}" in refused(call("evaluate", path, *data))
    assert f"not an ONNX model: {path}" in refused(call("predict", path, path))
    assert "no such file" in refused(call("evaluate", tmp_path / "none.onnx", *data))
    assert "'tests' is none of train, val, test" in refused(
        call("evaluate", path, *data, "--split", "tests")
    )


def test_a_classifier_has_no_more_threads_than_a_quota_leaves(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr("sgformer.export.onnx_classifier.usable_cpus", lambda: 2)
    assert OnnxClassifier(model).session.get_session_options().intra_op_num_threads == 2


def test_a_retraining_without_a_winner_says_why_there_is_none(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    config, _ = load_search_config(search_file)
    run = RunFolder(tmp_path / "run")
    run.make()
    run.save_config(config)
    study = create_study(run.storage_url(config), config)
    study.finish(study.ask().number, TrialStatus.PRUNED, {"end_reason": "diverged"})
    said = refused(call("retrain", run.path))
    assert "all 1 trials of study 'tiny' diverged (" in said
    assert "or name a trial with --trial" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_retraining_says_how_it_goes_on(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    monkeypatch.setattr(
        "hpo.delivery.retrain.retrain_and_deliver", lambda *_: signal.raise_signal(number)
    )
    monkeypatch.setattr("hpo.execution.interruption.ignore_signals", lambda: None)
    code, _, err = call("retrain", run_dir, "--trial", "1")
    assert code == 1
    assert err.endswith(f"error: interrupted; `retrain {run_dir} --trial 1` goes on\n")


def test_a_retraining_on_other_images_than_the_studys_says_so(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    open_run(run_dir).study.metadata.images = {"classes": ["cat"], "train": 61, "val": 30}

    def stop(*_: object) -> NoReturn:
        raise InputError("seen")

    monkeypatch.setattr("hpo.delivery.retrain.retrain_and_deliver", stop)
    err = refused(call("retrain", run_dir, "--trial", "1"))
    assert "note: the images are not those of the study: " in err
    assert "train had 61 images and has 60" in err


def test_a_format_that_there_is_not_is_refused_by_name(call: Call, tmp_path: Path) -> None:
    said = refused(call("export", tmp_path, "--format", "onnx,tflite"))
    assert "--format: takes onnx, uint8, int8, " in said
    assert "got 'tflite'" in said


def test_a_format_whose_package_is_missing_is_refused_before_anything_else(
    call: Call, tmp_path: Path, search_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(packages.PACKAGES, "openvino", ("a_package_of_no_one",))
    told = [
        refused(call("export", tmp_path, "--format", "openvino")),
        refused(call("search", search_file, "--dry-run", "--set", "export.openvino=true")),
    ]
    for said in told:
        assert "needs the package a_package_of_no_one" in said
        assert "pip install -c constraints.txt '.[openvino]'" in said
