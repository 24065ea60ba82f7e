import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.config.schema import ResourcesConfig
from hpo.delivery.evaluation import evaluate_checkpoint
from hpo.errors import BrokenTrainingError, ProcessDiedError, RunError
from hpo.execution.attempts import Attempts
from hpo.execution.cluster import TrialResources, connected
from hpo.execution.placement import PlacementWatch
from hpo.execution.retrain import retrain_all_on_cluster, retrain_epochs, run_on_cluster
from hpo.execution.training import Training
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError
from sgformer.training.checkpoint_file import load_checkpoint
from sgformer.validation import validate

TWO_SLOTS = TrialResources(cpus=1, gpus=0, num_slots=2)


def watch(**resources: Any) -> PlacementWatch:
    return PlacementWatch(ResourcesConfig(**resources), print)


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    with connected(None):
        yield


def test_an_interrupted_retraining_goes_on(train_config: TrainConfig, tmp_path: Path) -> None:
    rows = retrain_epochs(Training(train_config, tmp_path))
    first = [next(rows), next(rows)]
    rows.close()  # type: ignore[attr-defined]
    resumed = list(retrain_epochs(Training(train_config, tmp_path)))
    assert [row["epoch"] for row in resumed] == [1, 2, 3]
    assert resumed[:1] == first[:1]
    assert (tmp_path / "best.safetensors").exists()


def test_a_retraining_that_diverges_at_once_leaves_no_model(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    values = train_config.model_dump()
    values["optimizer"] |= {"learning_rate": 1e30, "warmup_epochs": 0}
    config = validate(TrainConfig, values, "test")
    rows = list(retrain_epochs(Training(config, tmp_path)))
    assert math.isnan(rows[-1]["val_loss"])
    assert not (tmp_path / "best.safetensors").exists()


def test_a_retraining_whose_checkpoint_is_not_seen_does_not_start_over(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)
    training = Training(train_config, tmp_path, num_epochs=1)
    with pytest.raises(CheckpointError, match=r"is of epoch 0 and not of 1; .* start over"):
        next(retrain_epochs(training))


def test_a_retraining_that_lost_its_process_is_known_by_its_epochs(
    train_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = []

    def train(training: Training, *_: object) -> Iterator[dict[str, int]]:
        known.append(training.num_epochs)
        yield {"epoch": training.num_epochs + 1}
        if len(known) < 3:
            raise ProcessDiedError

    monkeypatch.setattr("hpo.execution.retrain.retrain_epochs_on_cluster", train)
    told = list(
        retrain_all_on_cluster([Training(train_config, tmp_path)], [TWO_SLOTS], 3, watch())
    )
    assert known == [0, 1, 2]
    assert [said and said["epoch"] for _, said in told] == [1, 2, 3, None]  # type: ignore[index]


@pytest.mark.usefixtures("_ray")
def test_several_trainings_tell_their_epochs_and_their_ends(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    folders = [tmp_path / "run" / "retraining" / str(i) for i in range(3)]
    trainings = [
        Training(train_config.model_copy(update={"seed": i}), folder)
        for i, folder in enumerate(folders)
    ]
    list(retrain_epochs(trainings[2]))  # as if trained before an interruption
    told = list(retrain_all_on_cluster(trainings, [TWO_SLOTS] * len(trainings), 0, watch()))
    for i, folder in enumerate(folders):
        rows = [row for which, row in told if which == i]
        assert [row["epoch"] for row in rows if isinstance(row, dict)] == [1, 2, 3]
        assert rows[-1] is None
        assert Attempts(folder).epochs() == (1, 2, 3)


@pytest.mark.usefixtures("_ray")
def test_what_breaks_is_tried_again_and_then_told_while_others_go_on(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    folders = [tmp_path / "run" / "retraining" / str(i) for i in range(2)]
    (folders[0] / "best.safetensors").mkdir(parents=True)  # so the best epoch cannot be kept
    trainings = [Training(train_config, folder) for folder in folders]
    told = list(retrain_all_on_cluster(trainings, [TWO_SLOTS] * len(trainings), 1, watch()))
    (error,) = (said for i, said in told if i == 0)
    assert isinstance(error, BrokenTrainingError)
    assert str(error).startswith("the retraining broke on the cluster: ")
    assert Attempts(folders[0]).epochs() == (1, 1)
    assert (1, None) in told
    assert Attempts(folders[1]).epochs() == (1, 2, 3)


@pytest.mark.usefixtures("_ray")
def test_a_damaged_checkpoint_is_named(train_config: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "retraining" / "0"
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_text("a checkpoint that is none")
    trainings = [Training(train_config, folder)]
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*last\.safetensors"):
        list(retrain_all_on_cluster(trainings, [TWO_SLOTS], 3, watch()))


@pytest.mark.usefixtures("_ray")
def test_a_checkpoint_is_evaluated_on_the_cluster_as_here(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "training"
    list(retrain_epochs(Training(train_config.with_epochs(1), folder)))
    arguments = (folder / "best.safetensors", None, 0.0)
    *_, there = run_on_cluster(evaluate_checkpoint, arguments, TWO_SLOTS, "the evaluation")
    *_, here = evaluate_checkpoint(*arguments)
    assert there == here
    (folder / "best.safetensors").write_text("damaged")
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        list(run_on_cluster(evaluate_checkpoint, arguments, TWO_SLOTS, "the evaluation"))


@pytest.mark.usefixtures("_ray")
def test_a_comparison_that_is_ended_saves_trainings_within_their_epochs(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    short, long = (tmp_path / "run" / "retraining" / name for name in "ab")
    endless = train_config.model_copy(update={"epoch_images": 10**7})
    trainings = [Training(train_config, short), Training(endless, long)]
    told = retrain_all_on_cluster(trainings, [TWO_SLOTS] * len(trainings), 0, watch())
    assert next(told)[0] == 0
    while not Attempts(long).count():
        time.sleep(0.1)
    told.close()  # type: ignore[attr-defined]  as an interruption does
    _, metadata = load_checkpoint(long / "within_epoch.safetensors")
    assert metadata["within_epoch"]["losses"]


@pytest.mark.usefixtures("_ray")
def test_trainings_that_cannot_be_placed_end_after_the_time_to_wait(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    too_large = replace(TWO_SLOTS, cpus=99)
    out_of_time = watch(cpus_per_trial=99, wait_hours=0.0003)
    told = retrain_all_on_cluster([Training(train_config, tmp_path)], [too_large], 3, out_of_time)
    with pytest.raises(RunError, match=r"no training could run for 0\.0003 hours.* asks for 99"):
        list(told)
