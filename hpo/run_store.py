"""The checkpoints of a run at a URL (`study.checkpoint_to`), for nodes that share no folder.

    URL/NAME/.mark                 the mark of the run's folder: whose checkpoints these are
    URL/NAME/weights/              the run's copies of weights to start from
    URL/NAME/trials/3/             a trial; .retraining/... is a training after the search
        checkpoint.json            the pointer: which files are the checkpoint, and who holds it
        last-3f2a....safetensors   a file that the pointer names, under a name that is used once
        epochs.csv, attempts.csv   as in a run's folder

A checkpoint is there once the pointer names its files, which are written before it. So an upload
that was cut is never taken for a checkpoint. Importing this module is cheap.
"""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpo.config.results_url import url_below
from hpo.config.schema import SearchConfig
from hpo.errors import ClusterError, StudyError
from hpo.run_folder import MARK, RunFolder
from hpo.stored_training import (
    POINTER,
    SETTING,
    WEIGHTS,
    StoredTraining,
    patiently,
    saved_epochs,
)
from hpo.url_folder import UrlError, open_url, url_errors


@dataclass(frozen=True)
class RunStore:
    """The checkpoints of a run at a URL, for the driver and all nodes.

    Attributes:
        url: The URL of the run's checkpoints.
        mark: The mark of the run's folder.
        cache_dir: Where each node keeps what it trains with, as `data.cache_dir`.
    """

    url: str
    mark: str
    cache_dir: Path | None = None

    def check(self) -> None:
        """Checks that this machine reads the run's mark there, and can write.

        Raises:
            ClusterError: It does not, or cannot.
        """
        node = socket.gethostname()
        try:
            with url_errors():
                files = open_url(self.url)
                mark = files.read_text(MARK)
                files.write_mark()
        except UrlError as error:
            raise ClusterError(
                f"cannot write to {self.url} on {node}: {error} {SETTING}"
            ) from None
        if mark != self.mark:
            fault = "has no file .mark" if mark is None else "is another run's, as its .mark says"
            raise ClusterError(f"{self.url} as {node} sees it {fault} {SETTING}")

    def open(self, name: str, tell: Callable[[str], None] = lambda _: None) -> StoredTraining:
        """The checkpoint of a training, such as 'trials/3'; `tell` hears if the store is away.

        Raises:
            StoreError: The store is away.
        """
        files = patiently(lambda: open_url(self.url), self.url, tell)
        return StoredTraining(files, name, self.where(name), self.mark, tell)

    def where(self, name: str) -> str:
        """The URL of a training's folder."""
        return url_below(self.url, name)

    def send_weights(self, run: RunFolder) -> None:
        """Copies the run's own copies of weights to the store, unless it has them.

        Raises:
            StoreError: The store is away.
        """
        paths = list((run.path / WEIGHTS).glob("*.safetensors"))
        if not paths:
            return

        def send() -> None:
            files = open_url(self.url)
            there = files.sizes(WEIGHTS)
            for path in paths:
                if there.get(f"{WEIGHTS}/{path.name}") != path.stat().st_size:
                    files.write(f"{WEIGHTS}/{path.name}", path)

        patiently(send, self.url)

    def remove(self, name: str, *, with_curve: bool = True) -> None:
        """Removes the checkpoints of a training, or of all in a folder, as well as it can be done.

        Raises:
            UrlError: Some could not be removed.
        """
        with url_errors():
            files = open_url(self.url)
            for path in sorted(files.sizes(name), key=lambda path: not path.endswith(POINTER)):
                if with_curve or not path.endswith(".csv"):
                    files.delete(path)

    def discard(self, name: str) -> None:
        """Removes what is no longer needed; what cannot be removed stays."""
        with contextlib.suppress(UrlError):
            self.remove(name)

    def bring(self, name: str, folder: Path) -> None:
        """Copies a training's checkpoint to a folder of this machine, unless that is as far.

        Raises:
            CheckpointError: The checkpoint is not whole.
            StoreError: The store is away.
        """
        stored = self.open(name)
        if stored.num_epochs() > saved_epochs(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stored.fetch(folder)


def store_of(config: SearchConfig, run: RunFolder) -> RunStore | None:
    """Where the run's trainings keep their checkpoints; None: in the run's folder."""
    if config.study.checkpoint_to is None:
        return None
    url = url_below(config.study.checkpoint_to, config.study.name)
    return RunStore(url, run.mark(), config.train.data.cache_dir)


def claim_store(config: SearchConfig, run: RunFolder, *, is_trial: bool = False) -> None:
    """Makes the store the run's, if the run has one, and checks that it can be written to.

    Args:
        config: The config of the search.
        run: The run's folder.
        is_trial: Whether nothing is to stay there, as nothing begins yet.

    Raises:
        StudyError: The store cannot be written to, or holds the checkpoints of another run.
    """
    if config.study.checkpoint_to is None:
        return
    url = url_below(config.study.checkpoint_to, config.study.name)
    own = (run.path / MARK).read_text(encoding="utf-8") if (run.path / MARK).exists() else None
    try:
        with url_errors():
            files = open_url(url)
            files.write_mark()
            mark = files.read_text(MARK)
            holds_others = mark != own and any(path.endswith(POINTER) for path in files.sizes(""))
            if not (holds_others or is_trial):
                files.write_text(MARK, run.mark())
    except UrlError as error:
        raise StudyError(f"cannot write to {url}: {error} {SETTING}") from None
    if holds_others:
        raise StudyError(
            f"{url} holds the checkpoints of another run, or of this one before its folder "
            f"{run.path} was removed; remove them, or choose another --study-name {SETTING}"
        )


class StoredTrials:
    """The checkpoints of a run's trials in its store, which a thread removes.

    Args:
        store: The run's store.
        note: Is called with a message, once, if one cannot be removed.
    """

    def __init__(self, store: RunStore, note: Callable[[str], None]) -> None:
        self._store, self._note = store, note
        self._thread = ThreadPoolExecutor(1, "remove")
        self._is_away = False

    def size(self, number: int) -> int:
        """The bytes of a trial's checkpoints; 0 where the store is away."""
        with contextlib.suppress(UrlError), url_errors():
            sizes = open_url(self._store.url).sizes(f"trials/{number}")
            return sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
        return 0

    def remove(self, number: int) -> None:
        """Removes a trial's checkpoints, soon; its learning curve stays."""
        self._thread.submit(self._remove, number)

    def remove_previous(self, number: int) -> None:
        """Does nothing: a store has one checkpoint of a trial."""

    def _remove(self, number: int) -> None:
        if self._is_away:  # a search that ends does not wait for each
            return
        try:
            self._store.remove(f"trials/{number}", with_curve=False)
        except UrlError as error:
            self._is_away = True
            self._note(f"checkpoints of trials that ended stay in {self._store.url}: {error}")
