"""Decodes the images of a search in the background while Ray starts."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from hpo.engine.observer import SearchObserver
from sgformer.config import DataConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import load_image_data

SECONDS_UNTOLD: Final = 1.0  # a listing of files that takes longer is a phase of its own
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


class Decoding:
    """A thread that fills this machine's cache of decoded images, and reports its progress."""

    def __init__(self, config: DataConfig, observer: SearchObserver) -> None:
        self._config, self._observer = config, observer
        self._is_over, self._is_listing = threading.Event(), False
        self._begin = time.monotonic()
        self._images = in_background(self._decode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Silences the thread; the search does not wait for its end."""
        self._is_over.set()

    def images(self) -> SearchedImages:
        """Waits until all images are decoded; returns their description.

        Raises:
            DataError: The folder cannot be read, or too many of its images cannot.
        """
        return self._images.result()

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
                self._observer.note(note)
        counts = {name: len(samples) for name, samples in data.splits.items()}
        facts = {"classes": list(data.classes), **counts, "content": data.images.id.content}
        ratio = counts["val"] / counts["train"] if data.folder.val_is_of_train else None
        return SearchedImages(data.images.id, facts, ratio)

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
