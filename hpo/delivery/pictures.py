"""pictures.json: small copies of the images that a model gets wrong, and what it looked at."""

import base64
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from sgformer.errors import DataError, listed

if TYPE_CHECKING:
    from sgformer.data.image_data import ImageData
    from sgformer.images.decoding import RgbImage
    from sgformer.training.counts import Counts
    from sgformer.training.evaluation import Confusion

# At most 54 thumbnails, and with the saliency maps 60 small images: some 300 kB.
NUM_MISTAKES: Final = 18
NUM_PAIRS: Final = 9
NUM_OF_A_PAIR: Final = 4
NUM_MAPS: Final = 6
# No further map is begun after this time: of a large model on a CPU one takes half a minute.
SECONDS_OF_MAPS: Final = 20.0
THUMBNAIL_PIXELS: Final = 96  # the longer side
JPEG_QUALITY: Final = 85

Saliency = Callable[["RgbImage", int], "RgbImage"]  # an image and a class to a coloured image


class Pictures:
    """The pictures of what a model gets wrong in a split.

    Args:
        data: The images.
        split: The split that was evaluated.
        counts: The predictions for all samples of the split, in order, with their pairs.
        saliency: Draws on which parts of an image the probability of a class rests.
    """

    def __init__(
        self, data: "ImageData", split: str, counts: "Counts", saliency: Saliency
    ) -> None:
        self._data, self._split, self._saliency = data, split, saliency
        self._positions = data.samples(split)[:, 0]
        self._true, self._predicted = np.divmod(counts.pairs, len(data.classes))
        self._confidences = counts.confidences
        wrong = np.flatnonzero(self._true != self._predicted)
        # The most confident first; of equally confident ones, the first sample.
        self._wrong = wrong[np.argsort(-self._confidences[wrong], kind="stable")]
        self._made: dict[int, dict[str, Any]] = {}
        self._unreadable: dict[int, str] = {}
        self._num_maps, self._seconds_of_maps = 0, 0.0

    def values(self, most_confused: Sequence["Confusion"]) -> dict[str, Any]:
        """The content of pictures.json, for JSON.

        Args:
            most_confused: The split's most frequent confusions, the most frequent first.
        """
        return {
            "split": self._split,
            "mistakes": self._pictures(self._wrong[:NUM_MISTAKES].tolist()),  # these get the maps
            "confused": [
                {
                    "true": pair.true,
                    "predicted": pair.predicted,
                    "num_images": pair.num_images,
                    "images": self._pictures(self._samples_of(pair)),
                }
                for pair in most_confused[:NUM_PAIRS]
            ],
        }

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the pictures, a sentence each."""
        notes = []
        if self._unreadable:
            names = listed(self._unreadable.values())
            notes.append(f"pictures.json lacks images that cannot be read any more: {names}")
        num_due = min(NUM_MAPS, len(self._made))
        if self._num_maps < num_due:
            notes.append(
                f"pictures.json has saliency maps of {self._num_maps} images and not of "
                f"{num_due}, since these took {self._seconds_of_maps:.0f} s"
            )
        return tuple(notes)

    def _samples_of(self, pair: "Confusion") -> list[int]:
        true, predicted = (self._data.classes.index(c) for c in (pair.true, pair.predicted))
        of_pair = (self._true[self._wrong] == true) & (self._predicted[self._wrong] == predicted)
        chosen: list[int] = self._wrong[of_pair][:NUM_OF_A_PAIR].tolist()
        return chosen

    def _pictures(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """The pictures of those of the samples that can still be read."""
        for i in samples:
            if i in self._made or i in self._unreadable:
                continue
            position = int(self._positions[i])
            try:
                image = self._data.images[position]
            except DataError:
                self._unreadable[i] = self._data.images.where(position)
                continue
            self._made[i] = {
                "file": shown_name(self._data.images.names[position]),
                "true": self._data.classes[self._true[i]],
                "predicted": self._data.classes[self._predicted[i]],
                "confidence": float(self._confidences[i]),
                "thumbnail": thumbnail(image),
                "saliency": self._map(image, int(self._predicted[i])),
            }
        return [self._made[i] for i in samples if i in self._made]

    def _map(self, image: "RgbImage", predicted: int) -> str | None:
        if self._num_maps == NUM_MAPS or self._seconds_of_maps > SECONDS_OF_MAPS:
            return None
        begin = time.monotonic()
        coloured = thumbnail(self._saliency(image, predicted))
        self._num_maps += 1
        self._seconds_of_maps += time.monotonic() - begin
        return coloured


def thumbnail(image: "RgbImage") -> str:
    """The image (H, W, 3) as a JPEG in base64; its longer side has at most 96 pixels."""
    height, width = image.shape[:2]
    scale = THUMBNAIL_PIXELS / max(height, width)
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def shown_name(name: str) -> str:
    """'class/image' of an image's name, '<split>/<class>/<image>'.

    Where <image> leads out of the data set, as an absolute path of a manifest does, only the
    file's own name is shown.
    """
    name = name.encode(errors="surrogateescape").decode(errors="replace")
    _, class_name, image = name.split("/", 2)
    parts = image.replace("\\", "/").split("/")
    leads_out = any(part in ("", "..") or part.endswith(":") for part in parts)
    return f"{class_name}/{parts[-1] if leads_out else image}"
