"""A distillation from a finished run, run as a user runs it, with a real Ray."""

import json
from pathlib import Path

import yaml
from command_line import load_trials, run
from searches import FinishedSearch

WEIGHT = {"type": "float", "low": 0.2, "high": 0.9}
TEMPERATURE = {"type": "float", "low": 1.0, "high": 8.0, "log": True}


def test_a_run_teaches_a_smaller_model(
    finished: FinishedSearch, search_file: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load(search_file.read_text())
    values["space"] |= {
        "distillation.weight": WEIGHT, "distillation.temperature": TEMPERATURE,
    }  # fmt: skip
    values["study"] = {"num_trials": 2}
    values["retrain"] = {"seeds": 2, "top_k": 1, "max_share": None}
    values["train"]["max_epochs"] = 2
    search_file.write_text(yaml.safe_dump(values))
    runs = tmp_path / "runs"
    options = ["--into", search_file, "--output-dir", runs, "--study-name", "student"]
    planned = run("distil", finished.folder, *options, "--dry-run")
    assert "sg_former_pico, 0." in planned.stdout
    done = run("distil", finished.folder, *options)
    best = finished.folder / "best"
    assert f"the teacher is sg_former_pico, 0.12 M parameters, of {best}" in done.stderr
    assert "training the winner without its teacher on 2 fresh seeds" in done.stderr
    assert "without teacher " in done.stdout
    assert "its teacher adds " in done.stdout
    trials = load_trials(runs / "student")
    assert {"distillation.weight", "distillation.temperature"} <= set(trials[0].params)
    winner = json.loads(run("status", runs / "student", "--json").stdout)["winner"]
    assert winner["without_teacher"]["mean"] > 0
    told = json.loads(run("status", runs / "student", "--json").stdout)
    assert told["teacher"]["models"] == ["sg_former_pico"]
    assert told["teacher"]["val"]["num_images"] == 30
    assert not told["teacher"]["may_know_val"]
    assert set(told["latency_ms"]) == {"delivered", "teacher"}
    assert winner["gain_of_teacher"]["low"] < winner["gain_of_teacher"]["high"]
    config = yaml.safe_load((runs / "student" / "best" / "config.yaml").read_text())
    assert config["distillation"]["teacher"] == [str(best)]
    student = runs / "student" / "best"
    for name in ("model.onnx", "MODEL_CARD.md"):
        assert str(finished.root).encode() not in (student / name).read_bytes()
    card = (student / "MODEL_CARD.md").read_text()
    assert "digits/best" in card
    assert "Without its teacher: val_top1 " in card
    assert "Its teacher: sg_former_pico, 0.12 M parameters: val_top1 0." in card
    page = (runs / "student" / "report.html").read_text()
    assert "its teacher adds<b>" in page
    assert all(f"<td>{one}" in page for one in ("teacher", "student alone", "student distilled"))
    again = run("distil", finished.folder, *options, "--resume")
    assert "without teacher " in again.stdout
    assert "training" not in again.stderr
