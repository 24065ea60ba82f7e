"""Pictures: the most confident mistakes and the worst-confused pairs, if the run has them."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from hpo.reporting.page.parts import percent
from hpo.reporting.page.reported import Reported, read_json

FILE: Final = "pictures.json"
MOST_PICTURES: Final = 60
JPEG: Final = b"\xff\xd8"


@dataclass(frozen=True)
class Picture:
    """An image that the delivered model classified wrongly.

    Attributes:
        text: What it is, what it was taken for, and how sure the model was.
        file: Its name in the data set.
        thumbnail: The image, as base64 of a JPEG.
        saliency: Where the model looked, likewise; None: not known.
    """

    text: str
    file: str
    thumbnail: str
    saliency: str | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """A picture as pictures.json has it."""
        told = (
            f"{values['true']}, taken for {values['predicted']} ({percent(values['confidence'])})"
        )
        saliency = _jpeg(values.get("saliency"))
        return cls(told, str(values["file"]), _jpeg(values["thumbnail"]) or "", saliency)


@dataclass(frozen=True)
class Gallery:
    """Pictures with the sentence that says which they are."""

    text: str
    pictures: tuple[Picture, ...]


def galleries(found: Reported) -> tuple[Gallery, ...]:
    """The pictures of the delivered model; empty: there are none, or no more than names."""
    values = read_json(found.run.best / FILE)
    if not values:
        return ()
    split, left = values["split"], MOST_PICTURES
    text = f"The mistakes on {split} that the model was surest of."
    chosen = [Gallery(text, _pictures(values["mistakes"], left))]
    for pair in values["confused"]:
        left = MOST_PICTURES - sum(len(one.pictures) for one in chosen)
        num = pair["num_images"]
        text = (
            f"{pair['true']} taken for {pair['predicted']}: {num} image{'s' * (num != 1)} of "
            f"{split}."
        )
        chosen.append(Gallery(text, _pictures(pair["images"], left)))
    return tuple(one for one in chosen if one.pictures)


def _pictures(some: Sequence[Mapping[str, Any]], most: int) -> tuple[Picture, ...]:
    found = (Picture.of(values) for values in some[:most])
    return tuple(picture for picture in found if picture.thumbnail)


def _jpeg(text: str | None) -> str | None:
    """The text, if it is base64 of a JPEG."""
    try:
        is_jpeg = bool(text) and base64.b64decode(str(text), validate=True).startswith(JPEG)
    except binascii.Error:
        is_jpeg = False
    return text if is_jpeg else None
