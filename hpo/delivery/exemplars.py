"""Keeps images beside a delivered model, so that it can be extended when its images are gone.

    best/exemplars/herding.tar, random.tar    train images of each class, the most telling first
    best/exemplars/val.tar, test.tar          images to measure by what an extension forgets

A member is named LABEL/RANK.SUFFIX after its class's place in classes.json; no name or path of the
original file is kept.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from sgformer.sources.image_files import SUFFIXES

if TYPE_CHECKING:
    from sgformer.data.image_data import ImageData, Samples

FOLDER: Final = "exemplars"
JPEG: Final = ".jpg"


def write_exemplars(
    folder: Path, data: "ImageData", kept: "Mapping[str, Samples]", max_bytes: int
) -> dict[str, Any]:
    """Writes a tar file of each kind of kept images; returns their numbers of images and bytes.

    Args:
        folder: Gets the files.
        data: The images.
        kept: Positions and labels by kind, by rank and then by class: a file that would be larger
            than `max_bytes` loses the last ones.
        max_bytes: The most bytes of images of a kind.
    """
    folder.mkdir(parents=True)
    facts = {}
    for kind, samples in kept.items():
        ranks: Counter[int] = Counter()
        num_bytes = 0
        with tarfile.open(folder / f"{kind}.tar", "w") as tar:
            for position, label in samples.tolist():
                content, suffix = _content(data, position)
                if num_bytes + len(content) > max_bytes and len(ranks) == len(data.classes):
                    break
                member = tarfile.TarInfo(f"{label:05}/{ranks[label]:05}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                ranks[label] += 1
                num_bytes += len(content)
        num = sum(ranks.values())
        facts[kind] = {"num_images": num, "bytes": num_bytes, "is_cut": num < len(samples)}
    return facts


def _content(data: "ImageData", position: int) -> tuple[bytes, str]:
    """An image's file, or, where that is larger, a JPEG of the pixels that trainings see."""
    from sgformer.data.image_cache import to_jpeg

    images = data.images
    encoded = to_jpeg(images[position]).tobytes()
    original = images.content(position)
    suffix = PurePosixPath(images.names[position]).suffix.lower()
    if original and len(original) <= len(encoded) and suffix in SUFFIXES:
        return original, suffix
    return encoded, JPEG
