"""Fixtures of the tests that need a GPU; `make gpu-check` runs them, and all else skips them."""

from collections.abc import Callable, Iterator

import pytest
import torch

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.training.device import release_memory
from sgformer.validation import validate

Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def free_gpu() -> Iterator[None]:
    """Skips the test where there is no GPU; gives the test, and the next, all of its memory."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    release_memory()


@pytest.fixture
def data(train_config: TrainConfig) -> ImageData:
    return load_image_data(train_config.data)


@pytest.fixture
def configure(train_config: TrainConfig) -> Configure:
    """A function that returns the small training on the GPU, with some settings changed."""

    def change(**sections: object) -> TrainConfig:
        values = train_config.model_dump() | {"device": "cuda"}
        for name, section in sections.items():
            values[name] = values[name] | section if isinstance(section, dict) else section
        return validate(TrainConfig, values, "test")

    return change
