import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feature_tables import write_npz

from sgformer.errors import DataError
from sgformer.features.table import FeatureTable

pytestmark = pytest.mark.fuse


def parquet(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_csv_file_has_numbers_and_texts(tmp_path: Path) -> None:
    text = 'path,size,colour,is_new\na.png,1.5,red,true\nb.png,2,"",false\n'
    table = FeatureTable(csv(tmp_path / "t.csv", text))
    assert table.kinds == {"size": "number", "colour": "text", "is_new": "number"}
    (rows,) = table.parts()
    assert rows.names == ["a.png", "b.png"]
    assert rows.values["size"].tolist() == [1.5, 2.0]
    assert rows.values["colour"] == ["red", ""]
    assert rows.values["is_new"].tolist() == [1.0, 0.0]


def test_a_parquet_file_has_vectors_too(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "t.parquet", path=["a", "b"], size=[1, 2], embedding=[[0.5, 1], [2, 3]],
        colour=pa.array(["red", None]).dictionary_encode(),
    )  # fmt: skip
    table = FeatureTable(file)
    assert table.kinds == {"size": "number", "embedding": "vector", "colour": "text"}
    (rows,) = table.parts(["embedding", "colour"])
    assert rows.values["embedding"].tolist() == [[0.5, 1.0], [2.0, 3.0]]
    assert rows.values["colour"] == ["red", ""]
    assert set(rows.values) == {"embedding", "colour"}


def test_an_npz_file_has_names_and_vectors(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "t.npz", ["a", "b"], np.arange(6.0).reshape(2, 3))
    (rows,) = FeatureTable(file).parts()
    assert rows.names == ["a", "b"]
    assert rows.values["vectors"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_manifests_labels_and_splits_are_no_features(tmp_path: Path) -> None:
    file = csv(tmp_path / "t.csv", "path,label,split,size\na.png,cat,train,1\n")
    assert FeatureTable(file).kinds == {"size": "number"}


def test_a_long_file_is_read_in_parts(tmp_path: Path) -> None:
    num = 40_000
    names = [str(i) for i in range(num)]
    file = parquet(tmp_path / "t.parquet", path=names, size=np.arange(num))
    parts = list(FeatureTable(file).parts())
    assert len(parts) > 2
    assert [name for part in parts for name in part.names] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size\n1\n", r"t\.csv has no column 'path' with the images' names; its columns: 'size'"),
        ("path\na.png\n", r"has no column of features beside 'path'"),
        ("path,size,size\na,1,2\n", r"has two columns 'size'; rename one"),
        ("path,size\n,1\n", r"has a row without a path; name its image"),
        ("path,day\na,2020-01-01\n", r"column 'day' is of type date32.*numbers, text or lists"),
        ("path,size\na\n", r"cannot read .*t\.csv: "),
        ("", r"cannot read .*t\.csv: "),
    ],
)
def test_a_csv_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(FeatureTable(csv(tmp_path / "t.csv", text)).parts())


def test_vectors_of_several_lengths_are_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "t.parquet", path=["a", "b"], embedding=[[0.5, 1], [2.0]])
    words = r"the vector of 'b' in 'embedding' has 1 numbers, that of 'a' has 2; all vectors need"
    with pytest.raises(DataError, match=words):
        list(FeatureTable(file).parts())


def test_a_column_that_is_no_feature_is_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "t.parquet", path=["a"], when=[datetime.time(1)])
    with pytest.raises(DataError, match=r"column 'when' is of type time64.* leave it out"):
        _ = FeatureTable(file).kinds


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": np.array(["a"])},
        {"names": np.array([1]), "vectors": np.zeros((1, 2))},
        {"names": np.array(["a", "b"]), "vectors": np.zeros((1, 2))},
        {"names": np.array(["a"]), "vectors": np.zeros(1)},
        {"names": np.array(["a"]), "vectors": np.array([{}])},  # would have to be unpickled
    ],
)
def test_an_npz_file_of_another_form_is_refused(tmp_path: Path, arrays: dict) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=r"names \(N,\) of text and vectors \(N, size\) of number"):
        list(FeatureTable(tmp_path / "t.npz").parts())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", r"no such file of features: .*none\.csv \(--features, or train\.data"),
        ("t.txt", r"features are read from \.csv, \.parquet, \.npz files, got .*t\.txt"),
    ],
)
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = FeatureTable(tmp_path / name).kinds
