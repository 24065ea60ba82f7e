"""The bed `own`: recorded trainings of SG-Formers on small images. See beds.py."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from nearest_curves import Array, NearestCurves

Params = dict[str, Any]

# Units of distance, in ranges of a parameter. Predicting each recorded configuration of digits
# from the others, these err least of learning rates by 1, 2, 4, 8 and sizes by .25, .5, 1.
# Fashion-MNIST had no part in the choice.
STRETCH: Final = {"optimizer.learning_rate": 4.0}
SIZE_DISTANCE: Final = 1.0  # between a size and the next


class OwnTask:
    """Trainings on one data set, in per cent of images; a training delivers its best epoch.

    Args:
        file: The file that record_curves.py packs.
        name: The data set.

    Attributes:
        params: The recorded configurations, in order.
        values, tests: (n, max_epochs) val and test top-1, means over a configuration's seeds.
    """

    delivers: Final = "best"

    def __init__(self, file: Path, name: str) -> None:
        content = read_packed(file)
        self.max_epochs = int(content["max_epochs"])
        self.space: Mapping[str, Mapping[str, Any]] = {
            parameter: entry if entry["type"] == "categorical" else {"log": False, **entry}
            for parameter, entry in content["space"].items()
        }
        self.default: Params = dict(content["default"])
        trainings = [one for one in content["trainings"] if one["data"] == name]
        numbers = sorted({one["configuration"] for one in trainings})
        self.params: list[Params] = [content["configurations"][str(number)] for number in numbers]
        by_seed = [[one for one in trainings if one["configuration"] == n] for n in numbers]
        val, test = (
            [[self._whole(one[f"{split}_top1"], num_images) for one in ones] for ones in by_seed]
            for split, num_images in content["num_images"][name].items()
            if split != "train"
        )
        self.values: Array = np.array([np.mean(curves, axis=0) for curves in val])
        self.tests: Array = np.array([np.mean(curves, axis=0) for curves in test])
        self._seconds = np.array([self._mean_seconds(ones) for ones in by_seed])
        # What a training's val differs by from the mean over seeds, of variance like a seed's.
        self._deviations = np.array(
            [(curves[0] - curves[1]) / np.sqrt(2) for curves in val if len(curves) > 1]
        )
        self._nearest = NearestCurves(np.array([self._point(params) for params in self.params]))
        ends = self.values.max(1)
        self.best, self.median = float(ends.max()), float(np.median(ends))

    def curve(self, params: Params) -> tuple[Array, Array]:
        point = self._point(params)
        seconds = self._nearest.at(point, self._seconds[:, None])
        return self._nearest.at(point, self.values), np.full(self.max_epochs, seconds[0])

    def test_curve(self, params: Params) -> Array:
        return self._nearest.at(self._point(params), self.tests)

    def delivered(self, values: Array) -> float:
        return float(values.max())

    def recorded(self) -> tuple[Array, Array]:
        return self.values, self.tests

    def noise(self, rng: np.random.Generator) -> Array:
        """The deviation of a random configuration that has two seeds, with a random sign."""
        if not len(self._deviations):
            return np.zeros(self.max_epochs)
        deviation: Array = self._deviations[rng.integers(len(self._deviations))]
        return deviation * rng.choice((-1.0, 1.0))

    def _whole(self, counts: Sequence[int], num_images: int) -> Array:
        """Per cent of images; a diverged training is as bad as guessing from there on."""
        chance = num_images / 10
        missing = self.max_epochs - len(counts)
        return np.array([*counts, *[chance] * missing]) * 100 / num_images

    def _mean_seconds(self, trainings: Sequence[Mapping[str, Any]]) -> float:
        """Mean CPU seconds of an epoch; 1 if none was finished."""
        return float(np.mean([s for one in trainings for s in one["seconds"]] or [1.0]))

    def _point(self, params: Params) -> Array:
        place = []
        for name, entry in self.space.items():
            if entry["type"] == "categorical":
                place.append(entry["choices"].index(params[name]) * SIZE_DISTANCE)
                continue
            value, low, high = (float(v) for v in (params[name], entry["low"], entry["high"]))
            if entry["log"]:
                value, low, high = np.log([value, low, high])
            place.append((value - low) / (high - low) * STRETCH.get(name, 1.0))
        return np.array(place)


def read_packed(file: Path) -> dict[str, Any]:
    """The content of a packed file."""
    content: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return content


def own_names(file: Path) -> list[str]:
    """The data sets of a packed file, in order."""
    return sorted(read_packed(file)["num_images"])
