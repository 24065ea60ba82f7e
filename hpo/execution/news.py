"""What workers tell the driver beside their reports: of decoded images, and notes for the user."""

import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from hpo.engine.observer import SearchObserver
from hpo.run_folder import discard

SECONDS_BETWEEN_NEWS: Final = 1.0
SECONDS_TO_ANSWER: Final = 10.0
SHARE_BETWEEN_NOTES: Final = 0.1  # of a node's images


class Mailbox:
    """Keeps the latest news of each process; an actor of Ray on the driver's node."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Any]] = {}

    def put(self, name: str, said: dict[str, Any]) -> None:
        self._said[name] = said

    def said(self) -> dict[str, dict[str, Any]]:
        return self._said


def opened_mailbox(run_dir: Path) -> Any:
    """A new Mailbox, which all processes of the connected Ray find by the run's folder."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Mailbox)
    return actor.options(name=_name_of(run_dir), scheduling_strategy=here).remote()


def _mailbox_of(run_dir: Path) -> Any:
    """The run's Mailbox; None: this process is none of Ray's, or nodes share the run's folder."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    with contextlib.suppress(ValueError):  # there is no such actor
        return ray.get_actor(_name_of(run_dir))
    return None


def _name_of(run_dir: Path) -> str:
    return f"news of {run_dir.absolute()}"


def news_folder(run_dir: Path) -> Path:
    """The folder of a run in which workers leave news for the driver."""
    return run_dir / "news"


class News:
    """What a worker's process tells the driver, as a file in the run's folder.

    The folder is shared by all nodes, and a process that decodes images has no other way: it
    cannot report before it trains. Where nodes share no folder, an actor of Ray takes the news.
    """

    def __init__(self, run_dir: Path, seconds_between: float = SECONDS_BETWEEN_NEWS) -> None:
        node = socket.gethostname()
        self._seconds_between, self._mailbox = seconds_between, _mailbox_of(run_dir)
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
        if self._mailbox is not None:
            self._mailbox.put.remote(self._path.name, self._said)
            return
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # news are no reason to fail
            self._path.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(self._said), encoding="utf-8")
            temporary.replace(self._path)


@functools.cache
def news_of(run_dir: Path) -> News:
    """This process's News of a run."""
    return News(run_dir)


class NewsReader:
    """Reads what workers have written, and tells the observer what is new.

    Attributes:
        mailbox: The actor that takes news where nodes share no folder; None: there is none.
    """

    def __init__(self, run_dir: Path, observer: SearchObserver) -> None:
        self._folder, self._observer = news_folder(run_dir), observer
        self._notes: set[str] = set()
        self._shares: dict[str, float] = {}
        self._lock = threading.Lock()
        self.mailbox: Any = None
        discard(self._folder)  # the news of an earlier search

    def note(self, text: str) -> None:
        """Tells the observer a note of this process, and no worker's of the same text."""
        self._notes.add(text)
        self._observer.note(text)

    def read(self) -> None:
        with self._lock:
            for path in sorted(self._folder.glob("*.json")):
                with contextlib.suppress(OSError, ValueError):
                    self._tell(path.name, json.loads(path.read_text(encoding="utf-8")))
            for name, said in self._in_mailbox().items():
                self._tell(name, said)

    def close(self) -> None:
        """Tells what is still untold, and removes the news."""
        self.read()
        discard(self._folder)

    def _in_mailbox(self) -> dict[str, Any]:
        if self.mailbox is None:
            return {}
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # news are no reason to fail
            said: dict[str, Any] = ray.get(self.mailbox.said.remote(), timeout=SECONDS_TO_ANSWER)
            return said
        return {}

    def _tell(self, name: str, said: dict[str, Any]) -> None:
        for note in said["notes"]:
            if note not in self._notes:
                self._notes.add(note)
                self._observer.note(f"{said['node']}: {note}")
        if said["decoded"] is not None:
            self._tell_decoded(name, said["node"], *said["decoded"])

    def _tell_decoded(self, name: str, node: str, done: int, total: int) -> None:
        last, share = self._shares.get(name), done / total
        if last is None or share - last >= SHARE_BETWEEN_NOTES or (share == 1 and last < 1):
            self._shares[name] = share
            self._observer.note(f"{node} decodes images: {done} of {total}")
