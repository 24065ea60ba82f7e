"""Tests of decoding a search's images in the background, and of what other nodes tell."""

import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hpo.engine.observer import SearchObserver
from hpo.execution import searched_images
from hpo.execution.news import News, NewsReader
from hpo.execution.searched_images import Decoding, open_images
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


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def start(config: TrainConfig, run_dir: Path) -> Decoding:
    return Decoding(config.data, Remembering(), run_dir)  # type: ignore[abstract]


def test_whoever_waits_for_an_early_error_hears_whether_decoding_has_ended(
    train_config: TrainConfig, run_dir: Path, decoding_ends: threading.Event
) -> None:
    with start(train_config, run_dir) as decoding:
        assert not decoding.has_ended_within(0.01)
        decoding_ends.set()
        assert decoding.has_ended_within(60)
        assert decoding.images().facts["train"] == 60


def test_an_early_error_is_raised(train_config: TrainConfig, run_dir: Path) -> None:
    data = train_config.data.model_copy(update={"data_dir": run_dir / "none"})
    config = train_config.model_copy(update={"data": data})
    with (
        start(config, run_dir) as decoding,
        pytest.raises(DataError, match="image folder not found"),
    ):
        decoding.has_ended_within(60)


def test_notes_on_images_are_told_once(
    train_config: TrainConfig, own_image_folder: Path, run_dir: Path, tmp_path: Path
) -> None:
    (own_image_folder / "train/3/.hidden").touch()
    shutil.copy(own_image_folder / "train/3/0.png", own_image_folder / "val/3/x.png")
    update = {"data_dir": own_image_folder, "cache_dir": tmp_path / "cache"}
    data = train_config.data.model_copy(update=update)
    for _ in range(2):  # decodes, and opens what is decoded
        observer = Remembering()  # type: ignore[abstract]
        with Decoding(data, observer, run_dir) as decoding:
            decoding.images()
        assert [note.split(",")[0].split(":")[0] for note in observer.notes] == [
            "hidden files and folders passed over",
            "1 image of val",
        ]


def test_a_long_listing_of_files_is_a_phase_of_its_own(
    train_config: TrainConfig,
    own_image_folder: Path,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searched_images, "SECONDS_UNTOLD", 0.0)
    data = train_config.data.model_copy(
        update={"data_dir": own_image_folder, "cache_dir": own_image_folder / "cache"}
    )
    observer = Remembering()  # type: ignore[abstract]
    with Decoding(data, observer, run_dir) as decoding:
        decoding.images()
    assert observer.phases == ["decoding images", "listing images", "decoding images"]


def test_images_that_the_cache_has_no_room_for_are_noted_once(
    train_config: TrainConfig, run_dir: Path, tmp_path: Path
) -> None:
    update = {"cache_dir": tmp_path / "cache", "cache_bytes": 0}
    data = train_config.data.model_copy(update=update)
    observer = Remembering()  # type: ignore[abstract]
    with Decoding(data, observer, run_dir) as decoding:
        images = decoding.images()
        open_images(data, images.id, run_dir)  # as a worker on this node does
    (note,) = observer.notes
    assert note.startswith("110 of 110 decoded images are not kept in")


def test_a_worker_that_decodes_on_its_node_is_heard_of(
    train_config: TrainConfig, run_dir: Path, tmp_path: Path
) -> None:
    observer = Remembering()  # type: ignore[abstract]
    with Decoding(train_config.data, observer, run_dir) as decoding:
        images = decoding.images()
        elsewhere = train_config.data.model_copy(update={"cache_dir": tmp_path / "elsewhere"})
        open_images(elsewhere, images.id, run_dir)
    assert observer.notes == [f"{socket.gethostname()} decodes images: 110 of 110"]
    assert not list(run_dir.iterdir())  # nothing of it stays


def test_progress_is_told_a_tenth_at_a_time_and_a_note_once(run_dir: Path) -> None:
    observer = Remembering()  # type: ignore[abstract]
    reader, news = NewsReader(run_dir, observer), News(run_dir, seconds_between=0)
    for done in range(1, 101):
        news.decoded(done, 100)
        news.note("the disk is full")
        reader.read()
    decoded = [note for note in observer.notes if "decodes" in note]
    assert len(decoded) == 11
    assert decoded[-1].endswith("decodes images: 100 of 100")
    assert observer.notes.count(f"{socket.gethostname()}: the disk is full") == 1
    reader.close()
    News(run_dir, seconds_between=0).note("left by a search that was killed")
    NewsReader(run_dir, observer).read()
    assert "left by" not in observer.notes[-1]
