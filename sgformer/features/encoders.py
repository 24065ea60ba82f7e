"""Encoders of texts: each text becomes a vector. Nothing is downloaded."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from sgformer.data_config import HASHING
from sgformer.errors import ConfigError
from sgformer.features.sentences import SentenceEncoder

SIZE: Final = 256
NGRAMS: Final = (1, 2)
FOLDER_VARIABLE: Final = "SGFORMER_TEXT_ENCODER"


class TextEncoder(Protocol):
    """Turns texts into vectors of one size.

    Attributes:
        name: The name that a model keeps of its encoder; never a path.
        digest: Differs between encoders that give other vectors.
    """

    name: str
    digest: str

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors (N, size) of the texts."""
        ...


class HashingEncoder:
    """scikit-learn's HashingVectorizer: counts words and pairs of words, by the hash of each.

    It knows no language and has no weights, so a model that was trained with it needs no file to
    be served. An embedding of sentences tells more.
    """

    name = HASHING
    size = SIZE

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._vectorizer = HashingVectorizer(n_features=SIZE, ngram_range=NGRAMS)
        self.digest = hashlib.sha256(f"{HASHING} {SIZE} {NGRAMS}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors (N, size) of the texts, each of length 1, or 0 for an empty text."""
        return np.asarray(self._vectorizer.transform(texts).toarray(), np.float32)


def encoder_of(setting: str) -> TextEncoder:
    """The encoder that `data.text_encoder` names: `hashing`, or a folder.

    Raises:
        ConfigError: There is none.
    """
    if setting == HASHING:
        return HashingEncoder()
    if not Path(setting).is_dir():
        raise ConfigError(
            f"data.text_encoder: takes {HASHING!r}, or the folder of an encoder of sentences; "
            f"there is no folder {setting}"
        )
    return SentenceEncoder(Path(setting))


def encoder_of_model(name: str, setting: str | None = None) -> TextEncoder:
    """The encoder that a trained model names.

    A model knows its encoder's name and no path, so the folder of one that has weights is told by
    the setting, or else by the environment variable SGFORMER_TEXT_ENCODER.

    Args:
        name: The `name` of its encoder.
        setting: `data.text_encoder`; None: unknown.

    Raises:
        ConfigError: The folder is not told, or holds another encoder.
    """
    if name == HASHING:
        return HashingEncoder()
    folder = setting or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise ConfigError(
            f"the model's texts are encoded by {name}; name the folder of that encoder in the "
            f"environment variable {FOLDER_VARIABLE}"
        )
    encoder = encoder_of(folder)
    if encoder.name.rpartition("@")[2] != name.rpartition("@")[2]:
        raise ConfigError(
            f"the model's texts are encoded by {name}, and {folder} holds {encoder.name} "
            f"({FOLDER_VARIABLE})"
        )
    return encoder
