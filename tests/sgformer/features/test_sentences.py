import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from text_encoders import SIZE, write_encoder

from sgformer.errors import ConfigError
from sgformer.features.sentences import SentenceEncoder

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "small")


def test_texts_become_vectors_that_only_depend_on_the_text(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    one, same, other, nothing = encoder.encode(["it is red", "it is red", "it is twenty", ""])
    assert (one.shape, encoder.size) == ((SIZE,), SIZE)
    assert np.allclose(one, same, atol=1e-6)
    assert np.abs(one - other).max() > 0.01
    assert np.isfinite(nothing).all()
    assert np.allclose(SentenceEncoder(folder).encode(["it is red"])[0], one, atol=1e-6)


def test_its_name_tells_no_path(folder: Path) -> None:
    name, _, digest = SentenceEncoder(folder).name.partition("@")
    assert (name, len(digest)) == ("small", 16)


def test_threads_may_share_it(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    texts = [["it is red"], ["it is twenty or seventy"]] * 20
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encoder.encode, texts))
    assert all(np.allclose(one, found[i % 2], atol=1e-6) for i, one in enumerate(found))


def test_weights_that_would_be_unpickled_are_refused(folder: Path, tmp_path: Path) -> None:
    other = write_encoder(tmp_path / "other")
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin would be unpickled; save the enco"):
        SentenceEncoder(other)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    encoder = SentenceEncoder(tmp_path)
    with pytest.raises(ConfigError, match=f"{tmp_path} holds no encoder of sentence-transformers"):
        encoder.encode(["it is red"])


def test_without_the_package_one_message_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'sgformer-hpo\[text\]'"):
        _ = SentenceEncoder(folder).size
