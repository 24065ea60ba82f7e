"""Encoders of texts: each text becomes a vector. Nothing is downloaded."""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from sgformer.data_config import HASHING
from sgformer.errors import ConfigError

SIZE: Final = 256
NGRAMS: Final = (1, 2)


class TextEncoder(Protocol):
    """Turns texts into vectors of one size.

    Attributes:
        name: The name that a model keeps of its encoder; never a path.
        size: Numbers of a vector.
        digest: Differs between encoders that give other vectors.
    """

    name: str
    size: int
    digest: str

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


def encoder_of(name: str) -> TextEncoder:
    """The encoder that a setting names; raises ConfigError if there is none."""
    if name != HASHING:
        raise ConfigError(f"data.text_encoder: takes {HASHING!r}, got {name!r}")
    return HashingEncoder()
