import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx_models import write_classifier
from PIL import Image

from hpo.delivery.predictions import BATCH_SIZE, image_files, predictions
from sgformer.errors import InputError
from sgformer.export.onnx_classifier import OnnxClassifier


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """a/1.png, a/b/2.JPG, a text file, and what is hidden."""
    folder = tmp_path / "a"
    for name in ("1.png", "b/2.JPG", ".hidden/3.png", "b/._4.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    (folder / "text.txt").write_text("text")
    return folder


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("{}", ["1.png", "b/2.JPG"]),
        ("{}/1.png", ["1.png"]),
        ("{}/*.txt", ["text.txt"]),
        ("{}/**/[12].*", ["1.png", "b/2.JPG"]),
        ("-", ["1.png", "none.png"]),
        ("{}/none.png", ["none.png"]),
    ],
)
def test_files_are_found_by_folder_pattern_and_name(
    place: str, expected: list[str], images: Path
) -> None:
    names = [f"{images}/1.png\n", "\n", f"{images}/none.png"]
    found = image_files([place.format(images)], names)
    assert [str(file.relative_to(images)) for file in found] == expected


@pytest.mark.parametrize("place", ["{}/*.gif", "{}/empty"])
def test_a_place_without_images_is_refused(place: str, images: Path) -> None:
    (images / "empty").mkdir()
    with pytest.raises(InputError, match=r"no images in|no file matches"):
        image_files([place.format(images)], [])


def test_batches_say_what_single_images_say_and_pass_over_what_is_none(
    images: Path, tmp_path: Path
) -> None:
    classifier = OnnxClassifier(write_classifier(tmp_path / "model.onnx", ("x", "y")))
    files = [images / "1.png", images / "text.txt", images / "none.png", images / "b" / "2.JPG"]
    many = [tmp_path / f"{i}.png" for i in range(BATCH_SIZE)]
    for path in many:
        shutil.copy(files[0], path)
    unreadable: list[str] = []
    told: list[tuple[int, int]] = []
    found = dict(
        predictions(classifier, [*files, *many], unreadable.append, lambda *n: told.append(n))
    )
    assert list(found) == [files[0], files[3], *many]
    assert unreadable == [str(files[1]), str(files[2])]
    assert told == [(BATCH_SIZE, BATCH_SIZE + 4), (BATCH_SIZE + 4, BATCH_SIZE + 4)]
    for path, said in found.items():
        assert said.classes == pytest.approx(classifier.predict(path).classes)
