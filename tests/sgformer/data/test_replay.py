import numpy as np
import pytest

from sgformer.data.replay import replay_path, replayed
from sgformer.extension_config import ExtensionConfig

NAMES = (
    "train/9/replay/9.png",  # a new image, in a folder of this name
    *(f"train/0/{replay_path('herding', 0, rank, '.png')}" for rank in range(3)),
    *(f"train/0/{replay_path('random', 0, rank, '.png')}" for rank in range(2)),
    "train/9/new/replay/1.png",
)
SAMPLES = np.array([[i, 0 if "/0/" in name[:8] else 1] for i, name in enumerate(NAMES)])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3, 6]),
        ({"exemplars": 2}, [0, 1, 2, 6]),
        ({"choice": "random", "exemplars": 1}, [0, 4, 6]),
        ({"exemplars": 0}, [0, 6]),
    ],
)
def test_an_extension_replays_its_choice_and_number_of_exemplars(
    settings: dict, kept: list[int]
) -> None:
    found = replayed(SAMPLES, NAMES, ExtensionConfig(**settings))
    assert found[:, 0].tolist() == kept
