"""Tests of what a node lacks; whole clusters: tests/test_several_machines_end_to_end.py."""

from pathlib import Path

import pytest

from hpo.execution.node_check import fault_here, missing_images, what_nodes_share
from hpo.run_folder import RunFolder
from sgformer.config import TrainConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import load_image_data

NO_IMAGES = ImagesId("none", "none")


def test_this_machine_has_what_it_sees(train_config: TrainConfig, tmp_path: Path) -> None:
    shared = what_nodes_share(RunFolder(tmp_path), train_config.data, NO_IMAGES)
    assert sorted(shared.parts) == ["test", "train", "val"]
    assert fault_here(shared) is None


def test_images_that_are_not_there_are_missing_unless_they_were_decoded(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    places = {"data_dir": own_image_folder, "cache_dir": tmp_path / "cache"}
    data = train_config.data.model_copy(update=places)
    images = load_image_data(data.for_decoding()).images.id
    parts = ("train", "val", "test")
    assert missing_images(data, NO_IMAGES, parts) is None
    (own_image_folder / "val").rename(tmp_path / "moved")
    lacks = missing_images(data, NO_IMAGES, parts)
    assert lacks is not None
    assert f"the folder of the images {own_image_folder} lacks val on " in lacks
    own_image_folder.rename(tmp_path / "gone")
    for known in (None, NO_IMAGES):
        gone = missing_images(data, known, parts)
        assert gone is not None
        assert gone.startswith(f"the images {own_image_folder} are not there on ")
    assert missing_images(data.for_decoding(), images, parts) is None


@pytest.mark.fuse
def test_features_that_are_not_there_are_missing(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    data = train_config.data.model_copy(update={"features": table})
    lacks = missing_images(data, NO_IMAGES)
    assert lacks is not None
    assert lacks.startswith(f"the features {table} are not there on ")
    table.write_text("path,size\n")
    assert missing_images(data, NO_IMAGES) is None


@pytest.mark.fuse
def test_an_encoder_that_is_not_there_is_missing(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "words"
    data = train_config.data.model_copy(update={"text_encoder": str(folder)})
    lacks = missing_images(data, NO_IMAGES)
    assert lacks is not None
    assert lacks.startswith(f"the encoder of texts {folder} is not there on ")
    folder.mkdir()
    assert missing_images(data, NO_IMAGES) is None
