"""Reads back what trackers have of a run; servers on loopback: MLflow, a webhook."""

import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_line import PATIENCE_SECONDS
from ports import free_port


def tensorboard_steps(folder: Path, tag: str) -> list[int]:
    """The steps of a scalar in all event files of a folder, repeated ones too."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        event.step
        for path in sorted(folder.glob("events.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def wandb_steps(folder: Path, run_id: str) -> list[int]:
    """The steps of a run's history in all its offline files, repeated ones too."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps = []
    for path in sorted(folder.glob(f"offline-run-*/run-{run_id}.wandb")):
        records = [Record.FromString(data) for data in _logged(path.read_bytes())]
        steps += [one.history.step.num for one in records if one.HasField("history")]
    return steps


def _logged(data: bytes) -> Iterator[bytes]:
    """The records of a file of wandb, which is a log of LevelDB: parts in blocks of 32 KiB."""
    whole, place = b"", 7  # after the file's own header
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield whole
            whole = b""


class MlflowServer:
    """An `mlflow server` with a SQLite database, on loopback."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    # Its consumers of jobs end at once and are started again, without end.
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
            )  # fmt: skip
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.5)

    def stop(self) -> None:
        """Kills the server and its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class WebhookServer:
    """An HTTP server on loopback that keeps what is posted.

    Args:
        statuses: The status of each answer, the last for all further ones.
    """

    def __init__(self, *statuses: int) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []  # path and JSON
        kept, left = self.received, list(statuses or (200,))

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.append((self.path, json.loads(body)))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
