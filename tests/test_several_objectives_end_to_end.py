"""Tests of a search for accuracy and size, with a real Ray: killed, resumed, front delivered."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import Background, load_epochs, load_trials, run, study_attributes
from optuna.trial import TrialState
from searches import search_values

MICRO = {"model.name": "sg_former_micro", "optimizer.learning_rate": 2e-3, "model.drop_rate": 0.1}


@pytest.fixture(scope="module")
def search_file(
    tmp_path_factory: pytest.TempPathFactory, image_folder: Path, cache_dir: Path
) -> Path:
    values = search_values(image_folder, cache_dir)
    values["study"] = {
        "num_trials": 6,
        "enqueue": [MICRO],
        "objectives": [["num_parameters", "minimize"], ["val_top1", "maximize"]],
        "constraints": ["num_parameters <= 1e6", "bytes <= 1e8"],
        "select": "front",
    }
    values["retrain"]["seeds"] = 2  # has no effect with several objectives
    values["space"]["model.name"] = {
        "type": "categorical",
        "choices": ["sg_former_pico", "sg_former_nano", "sg_former_micro"],
    }
    path = tmp_path_factory.mktemp("file") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


Finished = tuple[Path, subprocess.CompletedProcess, dict[int, list[dict]]]


@pytest.fixture(scope="module")
def finished(search_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A search that was killed and resumed: folder, output, and epochs trained before the kill."""
    output_dir = tmp_path_factory.mktemp("runs")
    folder = output_dir / "tiny"
    command = ("search", search_file, "--output-dir", output_dir)

    def has_begun() -> bool:
        if not (folder / "search.yaml").exists():
            return False
        return sum(len(trial.intermediate_values) for trial in load_trials(folder)) >= 5

    running = Background(*command, log=output_dir / "log")
    try:
        running.wait_for(has_begun)
    finally:
        running.kill_everything()
    before = {
        t.number: load_epochs(folder, t.number) for t in load_trials(folder) if t.number != 1
    }
    return folder, run(*command, "--resume"), before


def test_curves_are_kept_and_go_on_after_a_kill(finished: Finished) -> None:
    folder, _, before = finished
    trials = load_trials(folder)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    for trial in trials:
        if trial.user_attrs["end_reason"].startswith("infeasible"):
            continue
        rows = load_epochs(folder, trial.number)
        told = [float(row["val_top1"]) for row in rows]
        assert list(trial.intermediate_values.values()) == told
        known = before.get(trial.number, [])
        assert rows[: len(known)] == known
        if trial.state == TrialState.COMPLETE:
            assert trial.values == [trial.user_attrs["num_parameters"], max(told)]


def test_what_the_architecture_rules_out_costs_no_epoch(finished: Finished) -> None:
    folder, done, _ = finished
    trial = load_trials(folder)[1]
    assert trial.params == MICRO
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {})
    assert trial.user_attrs["end_reason"].startswith("infeasible: num_parameters")
    assert trial.constraints["num_parameters <= 1,000,000"] > 0
    assert not (folder / "trials" / "1").exists()
    assert "infeasible" in done.stdout


def test_each_architecture_that_may_be_trained_is_measured_once(finished: Finished) -> None:
    folder, done, _ = finished
    assert "measuring architectures" in (folder.parent / "log").read_text()
    assert "measuring architectures" not in done.stderr
    measured = study_attributes(folder)["architectures"]
    assert {name: "bytes" in costs for name, costs in measured.items()} == {
        f"sg_former_{name} at 32 pixels": name != "micro" for name in ("pico", "nano", "micro")
    }
    trial = load_trials(folder)[
        json.loads(run("status", folder, "--json").stdout)["best"]["number"]
    ]
    exported = json.loads((folder / "best" / "export.json").read_text())["model.onnx"]
    assert exported["bytes"] == pytest.approx(trial.user_attrs["bytes"], rel=0.01)


def test_the_front_is_shown_and_each_of_it_delivered(finished: Finished) -> None:
    folder, done, _ = finished
    status = json.loads(run("status", folder, "--json").stdout)
    front = {row["number"]: row for row in status["front"]}
    assert status["best"]["number"] in front
    others = {str(number) for number in front if number != status["best"]["number"]}
    delivered = {path.name for path in folder.glob("front/*")}
    assert delivered == others
    for path in (folder / "best", *folder.glob("front/*")):
        assert {"model.onnx", "metrics.json", "export.json"} < {p.name for p in path.iterdir()}
    assert all(f"front, trial {number}" in done.stdout for number in front)
    assert "fresh seed" not in done.stdout + done.stderr
    assert status["winner"] is None
    rows = {int(r["number"]): r for r in csv.DictReader((folder / "leaderboard.csv").open())}
    assert {number for number, row in rows.items() if row["front"] == "True"} == set(front)
    page = (folder / "report.html").read_text()
    assert "data-figure='figure-front-num_parameters'" in page
    assert "Pareto front" in page


def test_another_select_delivers_anew(finished: Finished, search_file: Path) -> None:
    folder = finished[0]
    command = ("search", search_file, "--output-dir", folder.parent, "--resume")
    run(*command, "--set", "study.select=best")
    values = json.loads(run("status", folder, "--json").stdout)
    assert values["best"]["value"] == max(row["val_top1"] for row in values["front"])
    config = yaml.safe_load((folder / "best" / "config.yaml").read_text())
    assert config["model"]["name"] == values["best"]["params"]["model.name"]
    assert not list(folder.glob("front/*"))


def test_of_the_front_the_budget_may_leave_room_for_one_alone(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    small, large = "sg_former_pico", "sg_former_nano"
    values = search_values(image_folder, cache_dir)
    values["train"]["optimizer"]["learning_rate"] = 1e-7  # the small model learns nothing
    values["space"] = {
        "model.name": {"type": "categorical", "choices": [small, large]},
        "optimizer.learning_rate": {"type": "float", "low": 1e-7, "high": 1e-2, "log": True},
    }
    values["study"] = {
        "num_trials": 2,
        "enqueue": [{"model.name": large, "optimizer.learning_rate": 2e-3}],
        "objectives": [["val_top1", "maximize"], ["num_parameters", "minimize"]],
        "select": "front",
    }
    values["scheduler"] = {"name": "none"}
    values["budget"] = {"total_epochs": 2 * 4 + 4 + 3}
    search_file = tmp_path / "two.yaml"
    search_file.write_text(yaml.safe_dump(values, sort_keys=False))
    command = ("search", search_file, "--output-dir", tmp_path / "runs")
    folder = tmp_path / "runs" / "two"
    told = re.findall(r"trial (\d) of the front is not retrained", run(*command).stderr)
    status = json.loads(run("status", folder, "--json").stdout)
    assert {row["number"] for row in status["front"]} == {0, 1}
    assert told == [str(1 - status["best"]["number"])]
    assert status["delivered"]
    assert not (folder / "front").exists()
    more = run(*command, "--resume", "--set", "budget.total_epochs=16")
    assert "is not retrained" not in more.stderr
    assert (folder / "front" / told[0] / "model.onnx").exists()
