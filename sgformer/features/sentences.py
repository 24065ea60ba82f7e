"""An encoder of texts whose weights lie in a folder of sentence-transformers."""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from sgformer.errors import ConfigError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_SIZE: Final = 64
# Files of a folder that do not change what it computes.
PASSED_OVER: Final = (".md", ".gitattributes", ".gitignore", ".onnx", ".xml", ".bin")
PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.pkl")


class SentenceEncoder:
    """The sentence embeddings of a folder, as SentenceTransformer.save writes it.

    Nothing is downloaded, no code of the folder is run, and nothing is unpickled. The weights are
    loaded when the first text comes, which is never where a cache has the vectors.

    Args:
        folder: The folder.

    Raises:
        ConfigError: The folder has weights that would be unpickled; or, with the first text, the
            package is missing or the folder holds no such encoder.
    """

    def __init__(self, folder: Path) -> None:
        _refuse_pickles(folder)
        self._folder = folder
        self.digest = _digest(folder)
        self.name = f"{folder.name}@{self.digest[:16]}"
        self._lock = threading.Lock()  # a tokenizer serves one thread at a time

    @cached_property
    def _model(self) -> "SentenceTransformer":
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar
        except ImportError:
            raise ConfigError(
                "data.text_encoder: a folder needs the package sentence-transformers; "
                "pip install 'sgformer-hpo[text]'"
            ) from None
        disable_progress_bar()
        try:
            return SentenceTransformer(
                str(self._folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # the library raises what its parts raise
            raise ConfigError(
                f"data.text_encoder: {self._folder} holds no encoder of sentence-transformers: "
                f"{type(error).__name__}: {error}"
            ) from error

    @cached_property
    def size(self) -> int:
        """Numbers of a vector."""
        return len(self.encode([""])[0])

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors (N, size) of the texts, on a GPU if there is one."""
        with self._lock:
            vectors = self._model.encode(
                list(texts), batch_size=BATCH_SIZE, show_progress_bar=False
            )
        return np.asarray(vectors, np.float32)


def _refuse_pickles(folder: Path) -> None:
    """Raises ConfigError for weights in a form that would be unpickled."""
    for path in (one for pattern in PICKLES for one in sorted(folder.rglob(pattern))):
        if not (path.parent / "model.safetensors").is_file():
            raise ConfigError(
                f"data.text_encoder: {path} would be unpickled; save the encoder anew, with "
                "safetensors (SentenceTransformer.save)"
            )


def _digest(folder: Path) -> str:
    """A hash of the names and contents of the folder's files."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(above, name) for name in sorted(files))
        yield from (path for path in paths if not path.name.endswith(PASSED_OVER))
