"""Decodes the images of a search in the background, and tells of what other nodes decode."""

import contextlib
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from hpo.engine.observer import SearchObserver
from hpo.run_folder import discard
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data_config import DataConfig

SECONDS_UNTOLD: Final = 1.0  # a listing of files that takes longer is a phase of its own
SECONDS_BETWEEN_NEWS: Final = 1.0
SHARE_BETWEEN_NOTES: Final = 0.1  # of a node's images
Result = TypeVar("Result")


@dataclass(frozen=True)
class SearchedImages:
    """The description of a search's images.

    Attributes:
        id: Identifies the files and their content; workers refuse other images.
        facts: Stored in the study: classes, numbers of images by split, digest of the content.
        fold_ratio: Val images per training image, if val is split off train; None: val has a
            folder of its own.
    """

    id: ImagesId
    facts: dict[str, Any]
    fold_ratio: float | None


def news_folder(run_dir: Path) -> Path:
    """The folder of a run in which workers leave news for the driver."""
    return run_dir / "news"


class News:
    """What a worker's process tells the driver, as a file in the run's folder.

    The folder is shared by all nodes, and a process that decodes images has no other way: it
    cannot report before it trains.
    """

    def __init__(self, run_dir: Path, seconds_between: float = SECONDS_BETWEEN_NEWS) -> None:
        node = socket.gethostname()
        self._seconds_between = seconds_between
        self._path = news_folder(run_dir) / f"{node}-{os.getpid()}.json"
        self._said: dict[str, Any] = {"node": node, "decoded": None, "notes": []}
        self._written_at = time.monotonic()

    def decoded(self, done: int, total: int) -> None:
        """Tells, at most once a second, how many images are decoded, and when all are."""
        now = time.monotonic()
        if done < total and now - self._written_at < self._seconds_between:
            return
        self._written_at = now
        self._said["decoded"] = [done, total]
        self._write()

    def note(self, text: str | None) -> None:
        """Tells the user a text, once."""
        if text is not None and text not in self._said["notes"]:
            self._said["notes"].append(text)
            self._write()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # news are no reason to fail
            self._path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(self._said), encoding="utf-8")
            temporary.replace(self._path)


@functools.cache
def news_of(run_dir: Path) -> News:
    """This process's News of a run."""
    return News(run_dir)


@functools.lru_cache(maxsize=4)
def open_images(config: DataConfig, images: ImagesId | None, run_dir: Path | None) -> ImageData:
    """The decoded images, kept open for later trainings of this process.

    Args:
        config: Where the images are, and how they are decoded: `DataConfig.for_decoding`.
        images: Identifies the images of the search; None: any images are accepted.
        run_dir: The run's folder, where the driver hears of a decoding; None: it is not told.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
    """
    if run_dir is None:
        return load_image_data(config, expected=images)
    news = news_of(run_dir)
    data = load_image_data(config, news.decoded, images)
    news.note(data.cache_note)
    return data


class NewsReader:
    """Reads what workers have written, and tells the observer what is new."""

    def __init__(self, run_dir: Path, observer: SearchObserver) -> None:
        self._folder, self._observer = news_folder(run_dir), observer
        self._notes: set[str] = set()
        self._shares: dict[Path, float] = {}
        self._lock = threading.Lock()
        discard(self._folder)  # the news of an earlier search

    def note(self, text: str) -> None:
        """Tells the observer a note of this process, and no worker's of the same text."""
        self._notes.add(text)
        self._observer.note(text)

    def read(self) -> None:
        with self._lock:
            for path in sorted(self._folder.glob("*.json")):
                with contextlib.suppress(OSError, ValueError):
                    self._tell(path, json.loads(path.read_text(encoding="utf-8")))

    def close(self) -> None:
        """Tells what is still untold, and removes the news."""
        self.read()
        discard(self._folder)

    def _tell(self, path: Path, said: dict[str, Any]) -> None:
        for note in said["notes"]:
            if note not in self._notes:
                self._notes.add(note)
                self._observer.note(f"{said['node']}: {note}")
        if said["decoded"] is not None:
            self._tell_decoded(path, said["node"], *said["decoded"])

    def _tell_decoded(self, path: Path, node: str, done: int, total: int) -> None:
        last, share = self._shares.get(path), done / total
        if last is None or share - last >= SHARE_BETWEEN_NOTES or (share == 1 and last < 1):
            self._shares[path] = share
            self._observer.note(f"{node} decodes images: {done} of {total}")


class Decoding:
    """A thread that fills this machine's cache of decoded images, and reports its progress.

    After that it reports, to the end of the search, what workers on other nodes decode.

    Args:
        config: The images.
        observer: Is told of progress and notes.
        run_dir: The run's folder, in which workers leave their news.
    """

    def __init__(self, config: DataConfig, observer: SearchObserver, run_dir: Path) -> None:
        self._config, self._observer = config, observer
        self._is_over, self._is_listing = threading.Event(), False
        self._begin = time.monotonic()
        self._news = NewsReader(run_dir, observer)
        self._images = in_background(self._decode)
        self._is_reading = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Silences the threads; the search does not wait for their end."""
        self._is_over.set()
        self._news.close()

    def images(self) -> SearchedImages:
        """Waits until all images are decoded; returns their description.

        Raises:
            DataError: The folder cannot be read, or too many of its images cannot.
        """
        images = self._images.result()
        if not self._is_reading:  # workers start after this
            self._is_reading = True
            in_background(self._read_news)
        return images

    def has_ended_within(self, seconds: float) -> bool:
        """Waits at most `seconds` for the decoding; returns whether it has ended.

        Raises:
            DataError: The decoding failed within this time, such as on a missing folder.
        """
        try:
            self._images.result(seconds)
        except TimeoutError:
            return False
        return True

    def _decode(self) -> SearchedImages:
        self._observer.phase("decoding images")
        data = load_image_data(self._config, self._tell, found=self._found)
        for note in data.notes:
            if not self._is_over.is_set():
                self._news.note(note)
        counts = {name: len(samples) for name, samples in data.splits.items()}
        facts = {"classes": list(data.classes), **counts, "content": data.images.id.content}
        ratio = counts["val"] / counts["train"] if data.folder.val_is_of_train else None
        return SearchedImages(data.images.id, facts, ratio)

    def _read_news(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_NEWS):
            self._news.read()

    def _found(self, _num_files: int) -> None:
        """Says that listing the files takes a while, if it does."""
        is_late = time.monotonic() - self._begin > SECONDS_UNTOLD
        if is_late and not self._is_listing and not self._is_over.is_set():
            self._is_listing = True
            self._observer.phase("listing images")

    def _tell(self, done: int, total: int) -> None:
        if not self._is_over.is_set():
            if self._is_listing:
                self._is_listing = False
                self._observer.phase("decoding images")
            self._observer.step(done, total)


def in_background(action: Callable[[], Result]) -> Future[Result]:
    """Runs the action in a daemon thread, so that an interrupted search does not wait for it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  Future.result raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
