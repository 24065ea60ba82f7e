import os
import shutil
from pathlib import Path

import pytest

from hpo.serving.files import ModelFile, find_models
from sgformer.errors import InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, as far as serving looks at it."""
    best = tmp_path / "digits" / "best"
    best.mkdir(parents=True)
    (best / "model.onnx").write_bytes(b"model")
    return best.parent


def test_a_run_its_best_and_its_file_are_the_same_model(run: Path) -> None:
    for path in (run, run / "best", run / "best" / "model.onnx"):
        assert find_models([str(path)]) == [ModelFile("digits", run / "best" / "model.onnx")]
        assert find_models([f"a={path}"])[0].name == "a"


def test_another_file_has_its_own_name_and_a_path_may_hold_an_equals_sign(run: Path) -> None:
    other = run / "a=b.onnx"
    shutil.copy(run / "best" / "model.onnx", other)
    assert find_models([f"c={other}"]) == [ModelFile("c", other)]
    with pytest.raises(InputError, match=r"'a=b' is no name for a model.*NAME="):
        find_models([str(other)])


def test_models_of_the_same_name_are_refused(run: Path) -> None:
    with pytest.raises(InputError, match="two models are named 'digits'; name them by NAME=PATH"):
        find_models([str(run), str(run / "best")])


@pytest.mark.parametrize("text", ["none", "a=none", "."])
def test_a_model_that_is_not_there_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"no model at {text.removeprefix('a=')}; expected a"):
        find_models([text])


def test_another_file_has_another_signature_and_a_copy_stays(run: Path, tmp_path: Path) -> None:
    (model,) = find_models([str(run)])
    before = model.signature()
    (model.path.parent / "model.onnx.data").write_bytes(b"weights")
    copy = model.copy_to(tmp_path / "copy")
    new = run / "new"
    new.write_bytes(b"other")
    os.replace(new, model.path)  # noqa: PTH105
    assert model.signature() != before
    assert copy.read_bytes() == b"model"
    assert copy.with_name("model.onnx.data").read_bytes() == b"weights"
    model.path.unlink()
    assert model.signature() is None
