"""The worked example of docs/training.md, of ensembles and soups, with a real Ray."""

import json
import re
from pathlib import Path

import yaml
from command_line import fresh_trainings, run

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def example() -> dict:
    """The settings of the page's section on soups and ensembles."""
    section = PAGE.read_text(encoding="utf-8").split("## Soups and ensembles")[1]
    found = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


def test_an_ensemble_and_then_a_soup_of_a_search(search_file: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(search_file.read_text()) | example()
    values["study"] = {"num_trials": 1}
    values["train"]["max_epochs"] = 3
    search_file.write_text(yaml.safe_dump(values))
    place = ["--output-dir", tmp_path / "runs", "--study-name", "several"]
    done = run("search", search_file, *place)
    folder = tmp_path / "runs" / "several"
    assert len(fresh_trainings(folder)) == 3
    assert "choosing the members of an ensemble" in done.stderr
    assert re.search(r"^delivered as +(an ensemble of|the winner's model alone, not an ensemble)",
                     done.stdout, re.MULTILINE)  # fmt: skip
    check(folder, "ensemble")
    again = run("search", search_file, *place, "--resume")
    assert "training" not in again.stderr
    assert "delivered as" in again.stdout
    soup = ["--set", "retrain.deliver=soup", "--resume"]
    changed = run("search", search_file, *place, *soup)
    assert "training 2 models again, which were removed" in changed.stderr
    assert "choosing the members of a soup" in changed.stderr
    check(folder, "soup")


def check(folder: Path, asked: str) -> None:
    """Checks what programs and people read of a delivery."""
    told = json.loads(run("status", folder, "--json").stdout)["combination"]
    assert (told["asked"], told["num_candidates"]) == (asked, 3)
    assert told["members"][0] == {"trial": 0, "seed": 1}
    assert told["low"] <= told["gain"] <= told["high"]
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    is_combined = told["delivered"] == asked
    assert is_combined == (told["low"] > 0 and len(told["members"]) > 1)
    best = told["together"] if is_combined else told["alone"]
    assert abs(metrics["val"]["top1"] - best) < 1e-9
    assert ("latency_ms" in metrics) == is_combined
    assert "Delivered as" in (folder / "report.html").read_text()
    assert f"{asked}" in (folder / "best" / "MODEL_CARD.md").read_text()
    assert not (folder / ".retraining").exists()
