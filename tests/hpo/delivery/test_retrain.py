"""Retraining in this process; what becomes of a whole search is in tests/test_*.py."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from studies import create_study
from watcher import Watcher

from hpo import Run, RunFolder, load_search_config
from hpo.delivery.retrain import retrain_and_deliver
from hpo.errors import RunError
from hpo.model_files import ModelFiles
from hpo.selection.finalists import retrain_config, training_name
from hpo.study.trial import TrialStatus
from sgformer.errors import CheckpointError

SHORT = ("train.max_epochs=2", "retrain.max_epochs=2")


def run_of(search_file: Path, folder: Path, *overrides: str) -> Run:
    """A run with one trial, of the default configuration."""
    config, _ = load_search_config(search_file, (*SHORT, *overrides))
    run = RunFolder(folder)
    run.make()
    study = create_study(run.storage_url(config), config)
    number = study.ask().number
    study.report(number, {1: 0.25, 2: 0.5})
    study.finish(number, TrialStatus.COMPLETE, {"end_reason": "completed"}, 0.5)
    return Run(run, config, study)


def test_a_retraining_is_delivered_where_it_belongs_and_paid_for(
    search_file: Path, tmp_path: Path
) -> None:
    run = run_of(search_file, tmp_path / "run")
    watcher, folder = Watcher(), run.folder.front / "0"
    retrain_and_deliver(run, run.trials[0], watcher, folder=folder)
    assert ModelFiles(folder).is_delivered
    pictures = json.loads(ModelFiles(folder).pictures.read_text())
    assert pictures["split"] == "test"
    assert pictures["mistakes"]
    metrics = json.loads(ModelFiles(folder).metrics.read_text())["test"]
    assert sum(one["num_images"] for one in metrics["calibration"]["bins"]) == 20
    assert [row["epoch"] for row, _ in watcher.named("retrain_epoch")] == [1, 2]
    training, evaluation = run.study.metadata.retrainings
    assert (training["trial"], training["num_epochs"]) == (0, 2)
    assert (evaluation["trial"], evaluation["num_epochs"]) == (0, 0)
    assert evaluation["gpu_seconds"] == evaluation["seconds"] > 0
    both = training["seconds"] + evaluation["seconds"]
    assert run.study.metadata.seconds_searched >= 0.9 * both
    phases = [text for (text,) in watcher.named("phase")]
    assert phases[1:] == ["evaluating on val and test", "exporting to ONNX and checking it"]
    assert watcher.named("step")[-1] == (50, 50)
    assert run.study.metadata.delivered_trial is None  # it records only the model in best/
    assert not run.folder.retraining.exists()


def test_a_training_that_diverges_at_once_says_so(search_file: Path, tmp_path: Path) -> None:
    diverging = ("train.optimizer.learning_rate=1e30", "train.optimizer.warmup_epochs=0")
    del_rate = "space={model.drop_rate: {type: float, low: 0, high: 0.5}}"
    run = run_of(search_file, tmp_path / "run", *diverging, del_rate)
    with pytest.raises(
        RunError, match=r"retraining of trial 0 diverged in its first epoch; .* N`"
    ):
        retrain_and_deliver(run, run.trials[0], Watcher())


def test_a_checkpoint_that_is_not_there_is_no_divergence(
    search_file: Path, tmp_path: Path
) -> None:
    run = run_of(search_file, tmp_path / "run")

    class Elsewhere(Watcher):
        """Removes the checkpoint, as if a node had written to a folder that is not shared."""

        def retrain_epoch(self, row: Mapping[str, Any], max_epochs: int) -> None:
            if row["epoch"] == max_epochs:
                for path in run.folder.retraining.glob("*/best.safetensors"):
                    path.unlink()

    message = r"has ended after 2 epochs, but .* no file .*best\.safetensors; .* share"
    with pytest.raises(RunError, match=message):
        retrain_and_deliver(run, run.trials[0], Elsewhere())


def test_a_retraining_whose_checkpoint_is_gone_does_not_start_over(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)
    run = run_of(search_file, tmp_path / "run")
    config = retrain_config(run.config, run.trials[0].params)
    folder = run.folder.retraining / training_name(0, config)
    folder.mkdir(parents=True)
    (folder / "epochs.csv").write_text("epoch,val_top1\n1,0.5\n")
    with pytest.raises(CheckpointError, match=r"is of epoch 0 and not of 1; .* start over"):
        retrain_and_deliver(run, run.trials[0], Watcher())
