"""Tests of decoding a search's images in the background."""

import threading
from typing import Any

import pytest

from hpo.engine.observer import SearchObserver
from hpo.execution import searched_images
from hpo.execution.searched_images import Decoding
from sgformer.config import TrainConfig
from sgformer.errors import DataError


class Silent(SearchObserver):
    """A SearchObserver that ignores all events."""

    def phase(self, text: str) -> None:
        pass

    def step(self, done: int, total: int) -> None:
        pass


@pytest.fixture
def decoding_ends(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The event for which decoding waits."""
    event, decode = threading.Event(), searched_images.load_image_data

    def wait_and_decode(*arguments: Any) -> Any:
        assert event.wait(60)
        return decode(*arguments)

    monkeypatch.setattr(searched_images, "load_image_data", wait_and_decode)
    return event


def start(config: TrainConfig) -> Decoding:
    return Decoding(config.data, Silent())  # type: ignore[abstract]


def test_whoever_waits_for_an_early_error_hears_whether_decoding_has_ended(
    train_config: TrainConfig, decoding_ends: threading.Event
) -> None:
    with start(train_config) as decoding:
        assert not decoding.has_ended_within(0.01)
        decoding_ends.set()
        assert decoding.has_ended_within(60)
        assert decoding.images().facts["train"] == 60


def test_an_early_error_is_raised(train_config: TrainConfig, tmp_path: Any) -> None:
    data = train_config.data.model_copy(update={"data_dir": tmp_path / "none"})
    config = train_config.model_copy(update={"data": data})
    with start(config) as decoding, pytest.raises(DataError, match="image folder not found"):
        decoding.has_ended_within(60)
