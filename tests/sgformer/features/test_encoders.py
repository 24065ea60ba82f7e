import numpy as np
import pytest

from sgformer.errors import ConfigError
from sgformer.features.encoders import encoder_of

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
    with pytest.raises(ConfigError, match=r"data\.text_encoder: takes 'hashing', got 'bert'"):
        encoder_of("bert")
