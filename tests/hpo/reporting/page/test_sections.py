"""What single sections show: data of figures, tables, pictures, times."""

import json
from pathlib import Path
from typing import Any

import pytest
from reports import compare, data_of, figures_of, html_of, make_study
from studies import create_study

from hpo.config.schema import SearchConfig
from hpo.reporting.page.stretches import Stretch, lanes
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung
from hpo.study.study import SearchStudy

THUMBNAIL = "/9j/4AAQ"  # how JPEGs begin, as base64


def deliver(run: RunFolder, classes: int = 2, **more: Any) -> None:
    """Writes the metrics of a model that takes class 0 for class 1 three times in ten."""
    names = [f"class {i}" for i in range(classes)]
    matrix = [[10 if i == j else 0 for j in range(classes)] for i in range(classes)]
    matrix[0][:2] = [7, 3]
    one = {"precision": 0.75, "recall": 0.7, "f1": 0.72, "support": 10}
    confused = [{"true": "class 0", "predicted": "class 1", "num_images": 3}]
    metrics = {
        "top1": 0.75, "macro_f1": 0.7, "num_images": 10 * classes, "confusion_matrix": matrix,
        "per_class": dict.fromkeys(names, one), "most_confused": confused, **more,
    }  # fmt: skip
    run.best.mkdir(exist_ok=True)
    (run.best / "metrics.json").write_text(json.dumps({"val": metrics, "test": metrics}))
    (run.best / "classes.json").write_text(json.dumps(names))


def traces(run: RunFolder, figure: str) -> dict[str, Any]:
    return {trace["name"]: trace for trace in figures_of(run)[figure]["data"]}


def test_history_has_every_trial_by_number_and_by_cost(
    config: SearchConfig, run: RunFolder
) -> None:
    study = create_study(run.storage_url(config), config)
    for value, seconds in ((0.5, 10.0), (0.4, 5.0), (0.75, 20.0)):
        number = study.ask().number
        study.report(number, {1: value})
        facts = {
            "best_value": value, "seconds": seconds, "gpu_seconds": 2 * seconds,
            "end_reason": "completed",
        }  # fmt: skip
        study.finish(number, "COMPLETE", facts, value)
    write_report(run, config, study)
    by_number, by_cost = traces(run, "history"), traces(run, "history-cost")
    assert (by_number["complete"]["x"], by_number["complete"]["y"]) == (
        [0, 1, 2],
        [0.5, 0.4, 0.75],
    )
    assert by_number["best so far"]["x"] == [0, 2, 2]
    assert by_cost["complete"]["x"] == [20.0, 30.0, 70.0]
    assert by_cost["best so far"]["y"] == [0.5, 0.75, 0.75]
    assert "The same by GPU-seconds: all trials took 70." in html_of(run)
    assert "1.2 minutes" not in html_of(run)
    assert "<b>70 seconds</b>" in html_of(run)


def test_curves_are_one_trace_a_state_and_lead_to_trials(
    config: SearchConfig, run: RunFolder
) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE", "PRUNED", "PRUNED"]))
    found = traces(run, "curves")
    assert found["pruned"]["y"] == [0.255, 0.51, None, 0.26, 0.52, None]
    assert found["pruned"]["customdata"] == [1, 1, 1, 2, 2, 2]
    assert found["the default"]["customdata"] == [0, 0, 0]
    assert "Dotted: trials are compared at epochs 1 and 2." in html_of(run)
    assert [shape["x0"] for shape in data_of(run, "figure-curves")["layout"]["shapes"]] == [1, 2]


def test_the_page_says_where_trials_were_first_compared_and_why(
    config: SearchConfig, run: RunFolder
) -> None:
    values = config.model_dump()
    values["scheduler"]["min_epochs"] = None
    values["scheduler"]["name"] = "freeze_thaw"
    values["study"]["sampler"] = None
    config = SearchConfig.model_validate(values)
    study = make_study(config, run, ["COMPLETE", "PRUNED"])
    write_report(run, config, study)
    assert (
        "First decision at epoch 1 of 4 (default: 2 of 4 trials needed have come to epoch 2)"
    ) in html_of(run)
    level = FirstRung(epoch=2, late=4, num_trials=9, agreement={1: 0.25})
    study.metadata.first_levels = [level.model_dump(mode="json")]
    write_report(run, config, study)
    assert (
        "First decision at epoch 2 of 4: ranks before disagree with those at epoch 4 "
        "(Spearman 0.25 at epoch 1, 9 trials)"
    ) in html_of(run)
    assert "Dotted: trials are compared at epoch 2." in html_of(run)


def test_importances_have_intervals(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 7))
    assert "importance" not in figures_of(run)
    (study_file,) = run.path.glob("study.db")
    study_file.unlink()
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 9))
    (bars,) = figures_of(run)["importance"]["data"]
    assert set(bars["y"]) == set(config.space)
    assert sum(bars["x"]) == pytest.approx(1.0)
    assert all(spread >= 0 for spread in bars["error_x"]["array"])
    assert "by resampling the trials" in html_of(run)


def test_finalists_are_drawn_with_their_intervals_and_seeds(
    config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE"] * 3)
    compare(config, study, {2: [0.8, 0.82], 0: [0.5, 0.52]})
    write_report(run, config, study)
    found = traces(run, "finalists")
    assert found["mean"]["y"] == ["trial 2", "trial 0 (the default)"]
    assert found["mean"]["x"] == pytest.approx([0.81, 0.51])
    assert min(found["mean"]["error_x"]["array"]) > 0
    assert sorted(found["one seed"]["x"]) == [0.5, 0.52, 0.8, 0.82]
    assert "gain over the default<b>+0.3000</b>" in html_of(run)


def test_a_default_that_wins_is_told_plainly(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE", "COMPLETE"])
    compare(config, study, {1: [0.5, 0.51], 0: [0.5, 0.52]})
    write_report(run, config, study)
    assert "winner<b>trial 0</b>" in html_of(run)
    assert "none: the default configuration is the best of 2 finalists" in html_of(run)


def test_confusions_are_of_the_delivered_model(config: SearchConfig, run: RunFolder) -> None:
    deliver(run)
    study = make_study(config, run, ["COMPLETE", "PRUNED"])
    study.metadata.delivered_trial = 0
    write_report(run, config, study)
    (matrix,) = figures_of(run)["confusions"]["data"]
    assert matrix["text"] == [[7, 3], ["", 10]]
    assert "3 of 20 images of test are classified wrongly; class 0 is taken for class 1" in (
        html_of(run)
    )
    assert "test top-1, retrained<b>75.0 %</b>" in html_of(run)
    study.metadata.delivered_trial = 1  # by `retrain --trial`
    write_report(run, config, study)
    assert "test top-1, of trial 1, which is in best/<b>75.0 %</b>" in html_of(run)
    assert "best/ has the model of trial 1, which is not the winner." in html_of(run)


@pytest.mark.parametrize(("classes", "has_matrix"), [(30, True), (31, False)])
def test_beyond_thirty_classes_the_most_confused_pairs_are_listed(
    config: SearchConfig, run: RunFolder, classes: int, has_matrix: bool
) -> None:
    deliver(run, classes)
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert ("confusions" in figures_of(run)) == has_matrix
    row = "<td>class 0</td><td>class 1</td><td>3</td><td>30 %</td>"
    assert (row in html_of(run)) == (not has_matrix)
    assert len(data_of(run, "data-classes")["rows"]) == classes


@pytest.mark.parametrize(
    ("ece", "accuracy", "words"),
    [
        (0.01, 0.89, "1.0 % on average (expected calibration error); its confidence can be taken"),
        (0.2, 0.7, "it is too sure of itself"),
        (0.2, 0.95, "it is too unsure of itself"),
    ],
)
def test_calibration_is_drawn_and_told(
    config: SearchConfig, run: RunFolder, ece: float, accuracy: float, words: str
) -> None:
    bins = [
        {"confidence": 0.9, "accuracy": accuracy, "num_images": 10},
        {"confidence": 0.1, "accuracy": 0.0, "num_images": 0},
    ]
    deliver(run, calibration={"ece": ece, "bins": bins})
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    found = traces(run, "calibration")
    assert (found["the model"]["x"], found["the model"]["y"]) == ([0.9], [accuracy])
    assert found["as sure as right"]["x"] == [0, 1]
    assert words in html_of(run)


def test_pictures_are_shown_with_their_texts_sixty_at_most(
    config: SearchConfig, run: RunFolder
) -> None:
    deliver(run)
    image = {
        "file": "7/0001.png", "true": "7", "predicted": "1", "confidence": 0.93,
        "thumbnail": THUMBNAIL, "saliency": None,
    }  # fmt: skip
    pair = {"true": "8", "predicted": "3", "num_images": 40, "images": [image] * 40}
    seen = {**image, "saliency": THUMBNAIL}
    found = {"split": "test", "mistakes": [seen, *[image] * 29], "confused": [pair]}
    (run.best / "pictures.json").write_text(json.dumps(found))
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    page = html_of(run)
    assert page.count(f"src='data:image/jpeg;base64,{THUMBNAIL}'") == 61
    assert "alt='7/0001.png: 7, taken for 1 (93 %)'" in page
    assert "alt='Where the model looked" in page
    assert "8 taken for 3: 40 images of test." in page


def test_a_run_without_pictures_has_no_place_for_them(
    config: SearchConfig, run: RunFolder
) -> None:
    deliver(run)
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert "Pictures" not in html_of(run)


def test_exported_files_are_listed(config: SearchConfig, run: RunFolder) -> None:
    deliver(run)
    told = {
        "model.onnx": {
            "bytes": 2**21, "top1": 0.75,
            "parity": {"max_abs_diff": 2e-6, "argmax_agreement": 1.0},
            "latency_ms": {"1": {"p50": 1.5}, "8": {"p50": 4.25}},
        },
        "model.int8.onnx": {"not_delivered": "it loses <2 %"},
    }  # fmt: skip
    (run.best / "export.json").write_text(json.dumps(told))
    (run.best / "config.yaml").write_text("model: {name: sg_former_pico}\ndata: {image_size: 32}")
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    cells = ("model.onnx", "2.00 MiB", "0.7500", "100.00 %", "2.0e-06", "1.5", "4.25")
    assert "".join(f"<td>{cell}</td>" for cell in cells) in html_of(run)
    assert "<td>not delivered: it loses &lt;2 %</td>" in html_of(run)


def with_attempts(run: RunFolder, study: SearchStudy, seconds: float) -> None:
    """Two processes train three trials of two epochs; trial 1 pauses while trial 2 is trained."""
    begun = {
        0: [(0, 1, 1), (10, 1, 2)],
        1: [(0, 2, 1), (30, 2, 2)],
        2: [(10, 2, 1), (20, 2, 2)],
    }
    for number, epochs in begun.items():
        folder = run.trials / str(number)
        folder.mkdir(parents=True)
        rows = [f"2026-01-01T00:00:{at:02}+00:00,host,{pid},{epoch}" for at, pid, epoch in epochs]
        text = "\n".join(["started_at,hostname,pid,epoch", *rows, "2026-01-0"])
        (folder / "attempts.csv").write_text(text)
        study.ask()
        study.report(number, {1: 0.5, 2: 0.6})
        facts = {"seconds": 2 * seconds, "best_value": 0.6, "end_reason": "completed"}
        study.finish(number, "COMPLETE", facts, 0.6)


def test_slots_are_drawn_from_the_times_of_epochs(config: SearchConfig, run: RunFolder) -> None:
    study = create_study(run.storage_url(config), config)
    with_attempts(run, study, seconds=1.0)
    write_report(run, config, study)
    bars = traces(run, "slots")["complete"]
    drawn = sorted(zip(bars["customdata"], bars["y"], bars["base"], bars["x"], strict=True))
    assert [(number, slot, base[-2:]) for number, slot, base, _ in drawn] == [
        (0, "slot 1", "00"), (0, "slot 1", "10"), (1, "slot 2", "00"), (1, "slot 2", "30"),
        (2, "slot 2", "10"), (2, "slot 2", "20"),
    ]  # fmt: skip
    assert {x for *_, x in drawn} == {1000.0}


def test_epochs_without_a_pause_are_one_stretch(config: SearchConfig, run: RunFolder) -> None:
    study = create_study(run.storage_url(config), config)
    with_attempts(run, study, seconds=10.0)
    write_report(run, config, study)
    bars = traces(run, "slots")["complete"]
    drawn = sorted(zip(bars["customdata"], bars["x"], bars["hovertext"], strict=True))
    assert drawn == [
        (0, 20_000.0, "trial 0, epochs 1 to 2"),
        (1, 10_000.0, "trial 1, epochs 1 to 1"),
        (1, 10_000.0, "trial 1, epochs 2 to 2"),
        (2, 20_000.0, "trial 2, epochs 1 to 2"),
    ]
    assert "the slots trained for 75 % of the time." in html_of(run)


def test_a_process_takes_the_slot_of_one_that_ended() -> None:
    spans = {"a": (0, 10), "b": (0, 50), "c": (12, 20)}
    found = [Stretch(0, name, begin, end, 1, 1) for name, (begin, end) in spans.items()]
    assert lanes(found) == {"a": 1, "b": 2, "c": 1}


def test_failures_are_listed_by_cause_with_their_trials(
    config: SearchConfig, run: RunFolder
) -> None:
    study = create_study(run.storage_url(config), config)
    for message in ("no file", "no memory", "no file"):
        number = study.ask().number
        error = {"type": "OSError", "message": message, "traceback": "Traceback\n  line"}
        study.finish(number, "FAIL", {"error": error, "end_reason": message}, None)
    write_report(run, config, study)
    links = "<a href='#trial-0'>0</a>, <a href='#trial-2'>2</a>"
    assert f"<td>OSError: no file</td><td>2</td><td>{links}</td>" in html_of(run)
    trials = data_of(run, "data-trials")
    assert trials["errors"]["1"] == "Traceback\n  line"
    column = trials["table"]["columns"].index("what became of it")
    assert trials["table"]["rows"][1][column] == "failed: no memory"


def test_it_is_told_how_to_reproduce(config: SearchConfig, run: RunFolder, tmp_path: Path) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    page = html_of(run)
    assert f"run_search.py search {tmp_path / 'search.yaml'} --output-dir AGAIN" in page
    assert f"<td>seed</td><td>{config.study.seed}</td>" in page
    assert "<td>torch</td>" in page
    assert "num_trials: 9" in page
