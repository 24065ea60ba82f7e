import shutil
from pathlib import Path

import numpy as np
import pytest
from text_encoders import SIZE, write_encoder

from sgformer.errors import ConfigError
from sgformer.features.encoders import FOLDER_VARIABLE, encoder_of, encoder_of_model

pytestmark = pytest.mark.fuse


def test_the_hashing_encoder_tells_texts_apart_by_their_words() -> None:
    encoder = encoder_of("hashing")
    one, same, other, nothing = encoder.encode(["Red house", "red  house!", "a blue boat", ""])
    assert one.shape == (encoder.size,)
    assert np.array_equal(one, same)
    assert abs(one @ other) < 0.5
    assert not nothing.any()
    assert encoder_of("hashing").digest == encoder.digest


def test_an_unknown_encoder_is_refused() -> None:
    told = r"data\.text_encoder: takes 'hashing', or the folder .*; there is no folder bert"
    with pytest.raises(ConfigError, match=told):
        encoder_of("bert")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "small")


def test_a_model_finds_its_encoder_by_the_setting_or_by_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert encoder_of_model("hashing").name == "hashing"
    name = encoder_of(str(folder)).name
    with pytest.raises(
        ConfigError, match=f"encoded by {name}; name the folder .* {FOLDER_VARIABLE}"
    ):
        encoder_of_model(name)
    assert encoder_of_model(name, str(folder)).name == name
    moved = shutil.copytree(folder, tmp_path / "renamed")
    monkeypatch.setenv(FOLDER_VARIABLE, str(moved))
    assert encoder_of_model(name).size == SIZE


def test_a_model_refuses_an_encoder_with_other_weights(folder: Path, tmp_path: Path) -> None:
    other = write_encoder(tmp_path / "small", seed=1)
    name = encoder_of(str(folder)).name
    with pytest.raises(ConfigError, match=f"encoded by {name}, and {other} holds small@"):
        encoder_of_model(name, str(other))
