"""A search whose worker, and then the search itself, is told to end within an epoch."""

import csv
import os
import signal
from pathlib import Path

from command_line import PATIENCE_SECONDS, TRAIN_ONLY, Background
from searches import write_search

from sgformer.training.checkpoint_file import load_checkpoint


def test_a_worker_and_a_search_that_are_told_to_end_save_the_epoch_under_way(
    image_folder: Path, cache_dir: Path, tmp_path: Path
) -> None:
    search_file = write_search(
        tmp_path / "long.yaml", image_folder, cache_dir,
        study={"num_trials": 2, "enqueue": []}, resources={"max_concurrent_trials": 1},
        train={"epoch_images": 10**7, "max_epochs": 2},
        scheduler={"name": "none"},
        space={"optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
    )  # fmt: skip
    folder = tmp_path / "runs" / "long" / "trials" / "0"
    search = Background(
        search_file, "--output-dir", tmp_path / "runs",
        log=tmp_path / "log", program=TRAIN_ONLY,
    )  # fmt: skip

    def rows() -> list[dict[str, str]]:
        path = folder / "attempts.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    def entries() -> list[str]:
        return [row["epoch"] for row in rows()]

    search.wait_for(lambda: entries() == ["1"])
    os.kill(int(rows()[0]["pid"]), signal.SIGTERM)
    search.wait_for(lambda: len(entries()) == 2)  # a new worker goes on with the trial
    first, then = entries()
    assert (first, then.partition(".")[0]) == ("1", "1")
    num_steps = int(then.partition(".")[2])
    os.kill(search.process.pid, signal.SIGINT)
    assert search.process.wait(PATIENCE_SECONDS) == 1
    assert "interrupted; continue with --resume" in search.log.read_text()
    assert entries() == [first, then]
    _, metadata = load_checkpoint(folder / "within_epoch.safetensors")
    assert len(metadata["within_epoch"]["losses"]) > num_steps > 0
