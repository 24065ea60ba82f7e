"""Runs pip install, and says what it does: a line a package, or one line that changes.

Needs nothing but Python. `python .ci/pip_progress.py ARGUMENTS OF PIP INSTALL`
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

SECONDS_BETWEEN_LINES = 10.0  # while packages are unpacked, in a log
SECONDS_BETWEEN_LOOKS = 0.5
DOWNLOAD = re.compile(r"\s+(Downloading|Using cached) (\S+) \((.+)\)")
INSTALLING = "Installing collected packages: "


class Progress:
    """Tells what pip does: on a terminal in one line, in a log in lines of their own."""

    def __init__(self):
        self.is_terminal = sys.stdout.isatty()
        self.begun, self.num_collected = time.monotonic(), 0
        self.is_over, self.last = threading.Event(), ""

    def tell(self, text):
        """Shows a text, which the next one replaces on a terminal."""
        if text == self.last:
            return
        self.last = text
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]:<{width}}", end="", flush=True)
        else:
            print(text, flush=True)

    def read(self, line):
        """Takes a line that pip has printed."""
        if line.startswith(("Collecting ", "Processing ")):
            self.num_collected += 1
        elif found := DOWNLOAD.match(line):
            name = "-".join(found[2].split("-")[:2])
            self.tell(f"package {self.num_collected}: {found[1].lower()} {name} ({found[3]})")
        elif line.startswith(INSTALLING):
            num = line.count(",") + 1
            self.tell(f"installing {num} packages")
            threading.Thread(target=self.count, args=(num,), daemon=True).start()

    def count(self, num):
        """Tells how many packages are there, until pip ends."""
        folder = Path(sysconfig.get_path("purelib"))
        known, seconds = len(list(folder.glob("*.dist-info"))), SECONDS_BETWEEN_LOOKS
        while not self.is_over.wait(seconds if self.is_terminal else SECONDS_BETWEEN_LINES):
            done = min(num, max(0, len(list(folder.glob("*.dist-info"))) - known))
            self.tell(f"installing packages: {done} of {num}")

    def end(self):
        """Says how long it took."""
        self.is_over.set()
        minutes, seconds = divmod(round(time.monotonic() - self.begun), 60)
        self.tell(f"packages are installed ({minutes}:{seconds:02})")
        if self.is_terminal:
            print()


def main():
    """Runs pip; returns its exit code."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *sys.argv[1:]]
    progress = Progress()
    progress.tell("collecting packages")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as pip:
        for line in pip.stdout:
            progress.read(line)
    if pip.returncode:
        progress.is_over.set()
        print(f"{os.linesep * progress.is_terminal}error: pip ended with {pip.returncode}")
    else:
        progress.end()
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main())
