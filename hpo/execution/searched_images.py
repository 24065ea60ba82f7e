"""The images of a search, decoded in the background while Ray starts."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from hpo.engine.observer import SearchObserver
from sgformer.config import DataConfig
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import load_image_data

MOST_NAMES: Final = 10  # unreadable images that are named
Result = TypeVar("Result")


@dataclass(frozen=True)
class SearchedImages:
    """The images of a search.

    Attributes:
        id: Identifies the files and their content; workers refuse other ones.
        facts: What the study remembers: classes, numbers of images by split, content.
        fold_ratio: Validation images for each training image, where val is split off train;
            None where it has a folder of its own.
    """

    id: ImagesId
    facts: dict[str, Any]
    fold_ratio: float | None


class Decoding:
    """A thread that fills this machine's cache of decoded images, and tells how far it is."""

    def __init__(self, config: DataConfig, observer: SearchObserver) -> None:
        self._config, self._observer = config, observer
        self._is_over = threading.Event()
        self._images = in_background(self._decode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Has the thread tell nothing more; the search does not wait for its end."""
        self._is_over.set()

    def images(self) -> SearchedImages:
        """Waits for the images.

        Raises:
            DataError: Too many images cannot be read.
        """
        return self._images.result()

    def has_ended_within(self, seconds: float) -> bool:
        """Waits at most so long for the decoding, and says whether it has ended.

        Raises:
            DataError: The decoding has failed by then, such as on a folder that is not there.
        """
        try:
            self._images.result(seconds)
        except TimeoutError:
            return False
        return True

    def _decode(self) -> SearchedImages:
        self._observer.phase("decoding images")
        data = load_image_data(self._config, self._tell)
        if data.unreadable and not self._is_over.is_set():
            names = ", ".join(str(path) for path in data.unreadable[:MOST_NAMES])
            self._observer.note(
                f"{len(data.unreadable)} unreadable images are passed over: {names}"
            )
        counts = {name: len(samples) for name, samples in data.splits.items()}
        facts = {"classes": list(data.classes), **counts, "content": data.images.id.content}
        ratio = counts["val"] / counts["train"] if data.folder.val_is_of_train else None
        return SearchedImages(data.images.id, facts, ratio)

    def _tell(self, done: int, total: int) -> None:
        if not self._is_over.is_set():
            self._observer.step(done, total)


def in_background(action: Callable[[], Result]) -> Future[Result]:
    """Begins the action in a daemon thread, which an interrupted search does not wait for."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
