"""A search of search_spaces/fine_tune.yaml to its end, run as a user runs it, with a real Ray.

It takes half a minute: starting Ray, and exporting the model, take most of it.
"""

import csv
from pathlib import Path

import pytest
from command_line import load_trials, run
from optuna.trial import TrialState

import search_spaces

FILE = Path(search_spaces.__file__).parent / "fine_tune.yaml"
# A model that has BatchNorm and seven stages, on 110 scans at 32 pixels.
GUESS = {"freeze": "backbone", "optimizer.head_learning_rate_factor": 20.0}
SMALL = (
    "train.model.name=mobilenetv3_small_050",
    "train.model.pretrained=false",
    "train.data.image_size=32",
    "train.data.num_workers=0",
    "train.optimizer.batch_size=20",
    "train.max_epochs=2",
    "study.num_trials=3",
    f"study.enqueue=[{GUESS}]",
    "resources={cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent_trials: 2}",
    "retrain.seeds=0",
)


@pytest.fixture
def command(image_folder: Path, tmp_path: Path, cache_dir: Path) -> list[object]:
    settings = [*SMALL, f"train.data.cache_dir={cache_dir}"]
    options = [word for setting in settings for word in ("--set", setting)]
    return [FILE, "--data-dir", image_folder, "--output-dir", tmp_path, *options]


def test_a_dry_run_of_fine_tune_shows_what_would_be_searched(
    command: list[object], tmp_path: Path
) -> None:
    done = run("search", *command, "--dry-run")
    assert "freeze" in done.stdout
    assert "optimizer.head_learning_rate_factor" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_fine_tune_comes_to_its_end(command: list[object], tmp_path: Path) -> None:
    run("search", *command)
    folder = tmp_path / "fine_tune"
    trials = load_trials(folder)
    assert len(trials) == 3
    assert trials[0].params["freeze"] == "none"
    assert GUESS.items() <= trials[1].params.items()
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert (folder / "best" / "model.onnx").exists()
    rows = list(csv.DictReader((folder / "leaderboard.csv").open()))
    assert {row["freeze"] for row in rows} >= {"none", "backbone"}
