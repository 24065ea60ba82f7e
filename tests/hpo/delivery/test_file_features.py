from pathlib import Path

import pytest
from feature_tables import write_csv
from onnx_models import write_classifier

from hpo.delivery.file_features import features_of_files
from sgformer.errors import DataError, InputError
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.features.columns import Column, FeatureColumns

pytestmark = pytest.mark.fuse

FILES = [Path("a.png"), Path("b.png"), Path("c.png")]


@pytest.fixture
def classifier(tmp_path: Path) -> OnnxClassifier:
    columns = FeatureColumns((Column("size", "number", 1),))
    path = tmp_path / "model.onnx"
    return OnnxClassifier(write_classifier(path, ("x", "y"), columns.as_metadata()))


def test_a_table_names_files_as_they_are_given_or_by_their_ends(
    classifier: OnnxClassifier, tmp_path: Path
) -> None:
    sizes = {"a.png": 1, "images/d.png": 2, "other.png": 3, "mages/b.png": 4}
    table = write_csv(tmp_path / "t.csv", list(sizes), lambda name: {"size": sizes[name]})
    files, notes = [*FILES, tmp_path / "images" / "d.png"], list[str]()
    found = features_of_files(classifier, table, files, notes.append)
    assert {str(file): vector.tolist() for file, vector in found.items()} == {
        "a.png": [1], str(files[-1]): [2],
    }  # fmt: skip
    assert notes == [f"2 images have no features in {table}: 'b.png', 'c.png'"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "a.png"], r"has image 'a\.png' twice; leave one row out"),
        (["x.png"], r"names none of the images 'a\.png', 'b\.png', 'c\.png'; its paths are as"),
    ],
)
def test_a_table_that_does_not_suit_the_files_is_refused(
    classifier: OnnxClassifier, tmp_path: Path, names: list[str], message: str
) -> None:
    table = write_csv(tmp_path / "t.csv", names, lambda _: {"size": 1})
    with pytest.raises(DataError, match=message):
        features_of_files(classifier, table, FILES, print)


def test_the_end_of_several_files_is_refused_unless_it_is_one_of_them(
    classifier: OnnxClassifier, tmp_path: Path
) -> None:
    table = write_csv(tmp_path / "t.csv", ["1.png"], lambda _: {"size": 1})
    with pytest.raises(DataError, match=r"'1\.png' is the end of 'a/1\.png', 'b/1\.png'; give w"):
        features_of_files(classifier, table, [Path("a/1.png"), Path("b/1.png")], print)
    found = features_of_files(classifier, table, [Path("1.png"), Path("b/1.png")], print)
    assert list(found) == [Path("1.png")]


def test_a_model_of_images_alone_takes_no_table(tmp_path: Path) -> None:
    plain = OnnxClassifier(write_classifier(tmp_path / "model.onnx", ("x", "y")))
    with pytest.raises(InputError, match=r"--features: the model takes images alone; leave t\.cs"):
        features_of_files(plain, Path("t.csv"), FILES, print)
