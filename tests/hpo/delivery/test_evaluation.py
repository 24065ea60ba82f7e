import json
import shutil
from pathlib import Path

import pytest
from studies import create_study
from watcher import Watcher

from hpo import Run, RunFolder, load_search_config
from hpo.delivery import evaluation, pictures
from hpo.delivery.deliver import load_model
from hpo.delivery.evaluation import (
    Asked,
    evaluate_and_charge,
    evaluate_checkpoint,
    evaluate_splits,
)
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data


@pytest.fixture(scope="module")
def checkpoint(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a training of one epoch."""
    folder = tmp_path_factory.mktemp("run") / "training"
    config = train_config.with_epochs(1)
    list(retrain_epochs(Training(config, folder)))
    return folder / "best.safetensors"


def test_the_metrics_are_those_of_the_epoch_whose_weights_they_are(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    (row,) = retrain_epochs(Training(train_config.with_epochs(1), tmp_path / "run" / "training"))
    *_, last = evaluate_checkpoint(tmp_path / "run" / "training" / "best.safetensors")
    assert last.metrics is not None
    val = last.metrics["val"]
    assert (val["top1"], val["macro_f1"]) == (row["val_top1"], row["val_macro_f1"])
    assert val["loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert last.num_done == last.num_images == 50
    assert last.metrics["test"]["num_images"] == 20


def test_it_tells_how_far_it_has_come(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SECONDS_BETWEEN_NEWS", 0.0)
    told = list(evaluate_checkpoint(checkpoint))
    assert [news.num_done for news in told] == [30, 50, 50]
    assert [news.metrics is None for news in told] == [True, True, False]


def test_without_a_test_split_there_are_no_test_metrics(
    checkpoint: Path, own_image_folder: Path
) -> None:
    shutil.rmtree(own_image_folder / "test")
    config, model, _ = load_model(checkpoint)
    data = config.data.model_copy(update={"data_dir": own_image_folder})
    *_, last = evaluate_splits(config, model, load_image_data(data))
    assert last.metrics is not None
    assert last.metrics["test"] is None
    assert last.metrics["val"]["num_images"] == 30


def test_loading_processes_change_no_metric(checkpoint: Path) -> None:
    config, model, _ = load_model(checkpoint)
    data = load_image_data(config.data)
    found = []
    for num_workers in (0, 2):
        section = config.data.model_copy(update={"num_workers": num_workers})
        *_, last = evaluate_splits(config.model_copy(update={"data": section}), model, data)
        found.append(last.metrics)
    assert found[0] == found[1]


def test_a_model_of_a_gpu_is_evaluated_where_there_is_none(checkpoint: Path) -> None:
    config, model, _ = load_model(checkpoint)
    config = config.model_copy(update={"device": "cuda"})
    *_, last = evaluate_splits(config, model, load_image_data(config.data))
    assert last.num_images == 50


def test_the_pictures_are_of_what_the_metrics_count_as_wrong(
    checkpoint: Path, tmp_path: Path
) -> None:
    *_, last = evaluate_checkpoint(checkpoint, asked=Asked(has_pictures=True))
    *_, without = evaluate_checkpoint(checkpoint)
    assert (without.metrics, without.pictures, without.notes) == (last.metrics, None, ())
    assert last.metrics is not None
    assert last.pictures is not None
    assert last.notes == ()
    test = last.metrics["test"]
    assert last.pictures["split"] == "test"
    num_wrong = round((1 - test["top1"]) * test["num_images"])
    assert len(last.pictures["mistakes"]) == min(18, num_wrong) > 6
    keys = ("true", "predicted", "num_images")
    pairs = [{key: pair[key] for key in keys} for pair in last.pictures["confused"]]
    assert pairs == list(test["most_confused"][:9])
    maps = [one["saliency"] for one in last.pictures["mistakes"]]
    assert [text is not None for text in maps] == [True] * 6 + [False] * (len(maps) - 6)
    thumbnails = [one["thumbnail"] for one in last.pictures["mistakes"]]
    assert all(text != own for text, own in zip(maps[:6], thumbnails, strict=False))
    assert len(json.dumps(last.pictures)) < 400_000


def test_a_picture_that_fails_costs_the_pictures_only_and_is_told(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: object) -> str:  # as a GPU without memory would
        raise RuntimeError("CUDA out of memory\nmore lines")

    monkeypatch.setattr(pictures, "thumbnail", fail)
    *_, last = evaluate_checkpoint(checkpoint, asked=Asked(has_pictures=True))
    assert last.metrics is not None
    assert last.pictures is None
    assert last.notes == ("pictures.json is not written: RuntimeError: CUDA out of memory",)


@pytest.mark.parametrize("images", ["true", "false"])
def test_the_search_file_says_whether_there_are_pictures(
    images: str, checkpoint: Path, search_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config, _ = load_search_config(search_file, [f"report.images={images}"])
    folder = RunFolder(tmp_path / "run")
    folder.make()
    run = Run(folder, config, create_study(folder.storage_url(config), config))
    training = Training(config.train.resolved(), checkpoint.parent)
    monkeypatch.setattr(pictures, "SECONDS_OF_MAPS", -1.0)  # so that there is something to tell
    watcher = Watcher()
    found = evaluate_and_charge(run, 0, training, watcher, None, None)
    assert found.metrics is not None
    assert (found.pictures is not None) == (images == "true")
    told = [text for (text,) in watcher.named("note")]
    assert len(told) == (images == "true")
    assert all("saliency maps of 0 images" in text for text in told)


def test_an_evaluation_chooses_exemplars_to_extend_with_if_it_is_asked_to(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = evaluate_checkpoint(checkpoint, asked=Asked(keep_exemplars=2))
    assert {kind: len(kept) for kind, kept in last.kept.items()} == {
        "herding": 20, "random": 20, "val": 30, "test": 20,
    }  # fmt: skip
    monkeypatch.setattr("sgformer.training.exemplars.herding_order", None)
    *_, broken = evaluate_checkpoint(checkpoint, asked=Asked(keep_exemplars=2))
    assert broken.metrics == last.metrics
    assert broken.kept == {}
    (note,) = broken.notes
    assert note.startswith("no exemplars are kept, so `extend` cannot be used: TypeError: ")
