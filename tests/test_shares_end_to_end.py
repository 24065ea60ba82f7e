"""A search whose models take different shares of a GPU is killed, and goes on."""

import sys
from pathlib import Path

from command_line import Background, load_epochs, load_trials, num_epochs_reported, run
from searches import write_search

PRETENDED = (sys.executable, str(Path(__file__).parent / "support" / "pretended_gpus.py"))
SMALL, LARGE = "sg_former_pico", "sg_former_nano"
NUM_EPOCHS = 3


def test_models_that_share_a_gpu_and_one_that_does_not_outlive_a_kill(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "shares.yaml", image_folder, cache_dir,
        study={"num_trials": 7, "enqueue": [
            {"model.name": name, "model.drop_rate": 0.05 * i, "optimizer.learning_rate": 2e-3}
            for i, name in enumerate((SMALL, SMALL, LARGE, SMALL, SMALL, LARGE))
        ]},
        resources={"gpus_per_trial": "auto", "max_concurrent_trials": 2},
        train={"max_epochs": NUM_EPOCHS},
        scheduler={"name": "none"},
        space={"model.name": {"type": "categorical", "choices": [SMALL, LARGE]}},
    )  # fmt: skip
    runs = tmp_path / "runs"
    command, folder = [search_file, "--output-dir", runs], runs / "shares"
    search = Background(*command, log=tmp_path / "log", program=PRETENDED)
    search.wait_for(lambda: sum(num_epochs_reported(folder)) > 2 * NUM_EPOCHS)
    search.kill_everything()
    said = search.log.read_text()
    assert f"{SMALL} at 32 pixels, batches of 20: 1 CPU and 0.5 GPU" in said
    assert f"{LARGE} at 32 pixels, batches of 20: 1 CPU and 1 GPU" in said
    run(*command, "--resume", program=PRETENDED, NOTHING_TO_MEASURE="1")

    trials = load_trials(folder)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 7
    assert [trial.params["model.name"] for trial in trials].count(LARGE) == 2
    for trial in trials:
        assert len(load_epochs(folder, trial.number)) == NUM_EPOCHS
        facts = trial.user_attrs
        share = 1.0 if trial.params["model.name"] == LARGE else 0.5
        assert facts["gpu_seconds"] == share * facts["seconds"] > 0
