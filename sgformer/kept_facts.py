"""Keeps what was found out about timm's models, so that a machine finds it out once.

To ask timm takes seconds, most of them for its import. What is kept holds for the installed
versions of timm and PyTorch, and for the code that asks.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Final

from sgformer.disk import expanded

FOLDER: Final = Path("~/.cache/sgformer-hpo/models")
LIBRARIES: Final = ("timm", "torch")
ASKS: Final = "catalog.py"


def recall(*question: object) -> str | None:
    """The answer that was kept; None: none was, or it cannot be read."""
    try:
        return _file(question).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def keep(answer: str, *question: object) -> None:
    """Keeps an answer, unless the folder cannot be written to."""
    file = _file(question)
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            written = Path(folder) / file.name
            written.write_text(answer, encoding="utf-8")
            written.replace(file)


def _file(question: tuple[object, ...]) -> Path:
    key = json.dumps([*question, _versions()])
    return expanded(FOLDER) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


@functools.cache
def _versions() -> list[str]:
    code = hashlib.sha256(Path(__file__).with_name(ASKS).read_bytes()).hexdigest()
    return [*map(importlib.metadata.version, LIBRARIES), code]
