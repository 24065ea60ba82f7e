"""Decodes the images of a set by one set of rules, and tells what is odd in them, once a kind."""

import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sgformer.data_config import DataConfig
from sgformer.images.decoding import (
    CLIPPED,
    DEEP,
    FIRST_FRAME,
    NEGATIVE,
    TRANSPARENT,
    Decoded,
    RgbImage,
    decode_content,
    resize,
)
from sgformer.images.equal_images import equal_across
from sgformer.images.pixel_rules import PixelRules
from sgformer.images.value_range import measured_white
from sgformer.sources.source import ImageSource


class Oddities:
    """Counts the traits of images, with the first image of each; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, name: str, traits: Iterable[str]) -> None:
        with self._lock:
            for trait in traits:
                self._counts[trait] += 1
                # The smallest name, so that the note does not depend on the order of threads.
                self._first[trait] = min(name, self._first.get(trait, name))

    def notes(self, rules: PixelRules) -> tuple[str, ...]:
        """A sentence for each trait, such as "3 images with transparency, ...: 'a.png', ..."."""
        return tuple(
            f"{_images(self._counts[trait])} {kind}: {self._first[trait]!r}"
            f"{_more(self._counts[trait])}"
            for trait, kind in in_words(rules).items()
            if self._counts[trait]
        )


def in_words(rules: PixelRules) -> dict[str, str]:
    """What each trait of an image says of it."""
    background, white = ", ".join(map(str, rules.background)), rules.white_of("uint16")
    return {
        FIRST_FRAME: "with several frames or pages; the first is taken",
        TRANSPARENT: f"with transparency, laid on the colour {background} (train.data.background)",
        DEEP: f"of more than 8 bits a channel; the value {white:g}, or the largest that a PGM or "
        "PPM declares, becomes 255 (train.data.max_value)",
        CLIPPED: f"with values above {white:g}, which become 255 (train.data.max_value)",
        NEGATIVE: "with values below 0, which become 0",
    }


def rules_of_set(
    source: ImageSource, splits: Mapping[str, Collection[str]], config: DataConfig
) -> PixelRules:
    """How a set's deep and transparent images become 8-bit RGB.

    Where the config does not say which value becomes white in deep images, it follows from the
    train images, if the set is one to train with: it has train and val images.
    """
    white = config.max_value
    if white is None and {"train", "val"} <= splits.keys():
        # Of val, too, where it is split off train: how train is divided changes no pixels.
        names = sorted(name for part in splits.values() for name in part)
        white = measured_white(source, [name for name in names if name.startswith("train/")])
    return PixelRules(config.background, white)


def digest_of(content: bytes) -> int:
    """A number of 64 bits that files share if they are equal byte for byte."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


class SetDecoder:
    """Decodes a set's images, and collects their traits and contents; threads may share one.

    Args:
        source: Reads the images.
        splits: The names of each split's images.
        config: The resolved settings of the images.

    Attributes:
        rules: How deep and transparent images become 8-bit RGB.
    """

    def __init__(
        self, source: ImageSource, splits: Mapping[str, Collection[str]], config: DataConfig
    ) -> None:
        self.rules = rules_of_set(source, splits, config)
        self._source, self._splits, self._shorter_side = source, splits, config.decoded_pixels
        self._oddities = Oddities()
        self._contents: dict[str, int] = {}

    def __call__(self, name: str) -> RgbImage | None:
        """The image of a name, as `decode_image` gives it."""
        content = self._source.read(name)
        decoded = decode_content(content, self._shorter_side, self.rules)
        self._see(name, content, decoded)
        return None if decoded.pixels is None else resize(decoded.pixels, self._shorter_side)

    def facts(self) -> dict[str, Any]:
        """The rules and the notes, for JSON; see `rules_of`."""
        return {
            "background": self.rules.background,
            "max_value": self.rules.max_value,
            "notes": [*self._oddities.notes(self.rules), *self._on_equal_images()],
        }

    def _see(self, name: str, content: bytes, decoded: Decoded) -> None:
        self._oddities.add(name, decoded.traits)
        if decoded.pixels is not None:  # the threads write different keys
            self._contents[name] = digest_of(content)

    def _on_equal_images(self) -> Iterator[str]:
        """Images of a split whose files have the content of one of an earlier split."""
        names = sorted(self._contents)
        contents = np.array([self._contents[name] for name in names], np.uint64)
        position = {name: i for i, name in enumerate(names)}
        positions_of = {
            split: np.array(sorted(position[name] for name in own if name in position), np.int64)
            for split, own in self._splits.items()
        }
        for one in equal_across(names, contents, positions_of):
            first, twin = one.first
            yield (
                f"{_images(one.images)} of {one.split}, equal byte for byte to images of "
                f"{one.earlier}; metrics of {one.split} are too good: {first!r} is "
                f"{twin!r}{_more(one.images)}"
            )


def rules_of(facts: Mapping[str, Any]) -> PixelRules:
    """The rules in what `SetDecoder.facts` gave."""
    red, green, blue = facts["background"]
    return PixelRules((red, green, blue), facts["max_value"])


def rules_name(config: DataConfig) -> str:
    """A part for the name of a cache, where the settings of the rules are not the default's."""
    rules = PixelRules(config.background, config.max_value)
    if rules == PixelRules():
        return ""
    return f"-{int(hashlib.sha256(repr(rules).encode()).hexdigest()[:12], 16)}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""
