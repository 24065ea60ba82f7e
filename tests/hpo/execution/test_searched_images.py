"""Tests of decoding a search's images in the background."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from hpo.engine.observer import SearchObserver
from hpo.execution import searched_images
from hpo.execution.searched_images import Decoding
from sgformer.config import TrainConfig
from sgformer.errors import DataError


class Remembering(SearchObserver):
    """A SearchObserver that remembers phases and notes."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def step(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def decoding_ends(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The event for which decoding waits."""
    event, decode = threading.Event(), searched_images.load_image_data

    def wait_and_decode(*arguments: Any, **options: Any) -> Any:
        assert event.wait(60)
        return decode(*arguments, **options)

    monkeypatch.setattr(searched_images, "load_image_data", wait_and_decode)
    return event


def start(config: TrainConfig) -> Decoding:
    return Decoding(config.data, Remembering())  # type: ignore[abstract]


def test_whoever_waits_for_an_early_error_hears_whether_decoding_has_ended(
    train_config: TrainConfig, decoding_ends: threading.Event
) -> None:
    with start(train_config) as decoding:
        assert not decoding.has_ended_within(0.01)
        decoding_ends.set()
        assert decoding.has_ended_within(60)
        assert decoding.images().facts["train"] == 60


def test_an_early_error_is_raised(train_config: TrainConfig, tmp_path: Any) -> None:
    data = train_config.data.model_copy(update={"data_dir": tmp_path / "none"})
    config = train_config.model_copy(update={"data": data})
    with start(config) as decoding, pytest.raises(DataError, match="image folder not found"):
        decoding.has_ended_within(60)


def test_notes_on_images_are_told_once(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    (own_image_folder / "train/3/.hidden").touch()
    shutil.copy(own_image_folder / "train/3/0.png", own_image_folder / "val/3/x.png")
    update = {"data_dir": own_image_folder, "cache_dir": tmp_path / "cache"}
    data = train_config.data.model_copy(update=update)
    for _ in range(2):  # decodes, and opens what is decoded
        observer = Remembering()  # type: ignore[abstract]
        with Decoding(data, observer) as decoding:
            decoding.images()
        assert [note.split(",")[0].split(":")[0] for note in observer.notes] == [
            "hidden files and folders passed over",
            "1 image of val",
        ]


def test_a_long_listing_of_files_is_a_phase_of_its_own(
    train_config: TrainConfig, own_image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searched_images, "SECONDS_UNTOLD", 0.0)
    data = train_config.data.model_copy(
        update={"data_dir": own_image_folder, "cache_dir": own_image_folder / "cache"}
    )
    observer = Remembering()  # type: ignore[abstract]
    with Decoding(data, observer) as decoding:
        decoding.images()
    assert observer.phases == ["decoding images", "listing images", "decoding images"]
