"""Which images of an extended set are exemplars of old classes, and which of these are trained on.

Exemplars are told by their paths in the set's manifest: replay/<choice>/<class>/<rank>.<suffix>.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from sgformer.data.image_data import ImageData, Samples
from sgformer.extension_config import ExtensionConfig

FOLDER: Final = "replay"
EXEMPLAR: Final = re.compile(rf"{FOLDER}/(\w+)/\d{{5,}}/(\d{{5,}})\.\w+")


def replay_path(kind: str, label: int, rank: int, suffix: str) -> str:
    """The path of an exemplar, below the folder of its manifest.

    Args:
        kind: How it was chosen.
        label: Its class.
        rank: Its place among the exemplars of its class, from 0; the first ones say most.
        suffix: That of its format, such as '.png'.
    """
    return f"{FOLDER}/{kind}/{label:05}/{rank:05}{suffix}"


def train_samples(data: ImageData, settings: ExtensionConfig) -> Samples:
    """The train images that a training uses: (N, 2) positions and labels."""
    samples = data.samples("train")
    return replayed(samples, data.images.names, settings) if settings.is_used else samples


def replayed(samples: Samples, names: Sequence[str], settings: ExtensionConfig) -> Samples:
    """The samples without exemplars that were chosen otherwise, or are beyond the number.

    Args:
        samples: (N, 2) positions and labels.
        names: The names of all images, 'split/class/path', by position.
        settings: Says which exemplars stay.
    """
    kept = [_stays(names[position], settings) for position in samples[:, 0].tolist()]
    return np.asarray(samples[np.array(kept, dtype=bool)])


def _stays(name: str, settings: ExtensionConfig) -> bool:
    exemplar = EXEMPLAR.fullmatch(name.split("/", 2)[2])
    if exemplar is None:  # a new image
        return True
    return exemplar[1] == settings.choice and (
        settings.exemplars is None or int(exemplar[2]) < settings.exemplars
    )
