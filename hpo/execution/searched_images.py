"""Decodes the images of a search in the background, and tells of what other nodes decode."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from hpo.engine.observer import SearchObserver
from hpo.execution.news import NewsReader, news_of, opened_mailbox
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data_config import DataConfig

SECONDS_UNTOLD: Final = 1.0  # a listing of files that takes longer is a phase of its own
SECONDS_BETWEEN_NEWS: Final = 1.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class SearchedImages:
    """The description of a search's images.

    Attributes:
        id: Identifies the files and their content; workers refuse other images.
        facts: Stored in the study: classes, numbers of images by split, digest of the content,
            and that of the features if there are any.
        fold_ratio: Val images per training image, if val is split off train; None: val has a
            folder of its own.
        num_features: Numbers of the features that go with an image; None: there are none.
    """

    id: ImagesId
    facts: dict[str, Any]
    fold_ratio: float | None
    num_features: int | None = None


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


class Decoding:
    """A thread that fills this machine's cache of decoded images, and reports its progress.

    After that it reports, to the end of the search, what workers on other nodes decode.

    Args:
        config: The images.
        observer: Is told of progress and notes.
        run_dir: The run's folder, in which workers leave their news.
    """

    def __init__(self, config: DataConfig, observer: SearchObserver, run_dir: Path) -> None:
        self._config, self._observer, self._run_dir = config, observer, run_dir
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

    @contextlib.contextmanager
    def hearing_nodes(self, *, share_a_folder: bool) -> Iterator[None]:
        """Hears, for the block, what nodes of the connected Ray say that share no folder."""
        if share_a_folder:
            yield
            return
        self._news.mailbox = opened_mailbox(self._run_dir)
        try:
            yield
        finally:
            self._news.read()
            self._news.mailbox = None

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
        images = data.images.id
        if data.features is not None:
            images = replace(images, features=data.features.digest)
            facts |= {"features": data.features.digest}
        ratio = counts["val"] / counts["train"] if data.folder.val_is_of_train else None
        num = None if data.features is None else data.features.columns.size
        return SearchedImages(images, facts, ratio, num)

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
