from pathlib import Path

import numpy as np
import pytest
from feature_tables import write_csv, write_npz

from sgformer.errors import DataError
from sgformer.features.columns import Column
from sgformer.features.encoders import HashingEncoder
from sgformer.features.fitting import MOST_CATEGORIES, MOST_NUMBERS, fitted_columns
from sgformer.features.table import FeatureTable

pytestmark = pytest.mark.fuse


def is_train(name: str) -> bool:
    return name.startswith("train/")


def table(path: Path, **columns: list) -> FeatureTable:
    """A table of one val image, which comes last, and of train images."""
    num = len(next(iter(columns.values())))
    names = [f"train/{i}" for i in range(num - 1)] + ["val/0"]
    of = {name: {c: values[i] for c, values in columns.items()} for i, name in enumerate(names)}
    return FeatureTable(write_csv(path / "t.csv", names, of.__getitem__))


def test_categories_are_those_of_the_train_images(tmp_path: Path) -> None:
    found = fitted_columns(
        table(tmp_path, colour=["red", "blue", "red", "green"], size=[1, 2, 3, 4]), is_train, None
    )
    assert found.columns == (
        Column("colour", "category", 2, ("blue", "red")),
        Column("size", "number", 1),
    )


def test_the_column_text_is_for_the_encoder(tmp_path: Path) -> None:
    one = table(tmp_path, text=["a", "b", "c"], colour=["red", "red", "blue"])
    found = fitted_columns(one, is_train, HashingEncoder())
    assert [column.kind for column in found.columns] == ["text", "category"]
    assert found.encoder == "hashing"
    assert [column.kind for column in fitted_columns(one, is_train, None).columns] == [
        "category", "category",
    ]  # fmt: skip


def test_a_table_without_texts_is_refused_by_the_encoder(tmp_path: Path) -> None:
    one = table(tmp_path, size=[1, 2])
    with pytest.raises(DataError, match=r"no column 'text' of text, which data\.text_encoder rea"):
        fitted_columns(one, is_train, HashingEncoder())


def test_too_many_categories_are_refused(tmp_path: Path) -> None:
    texts = [f"number {i}" for i in range(MOST_CATEGORIES + 2)]
    with pytest.raises(DataError, match=r"'note' has over 1000 different texts; .*--texts"):
        fitted_columns(table(tmp_path, note=texts), is_train, None)


def test_a_vector_of_too_many_numbers_is_refused(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "t.npz", ["train/0"], np.zeros((1, MOST_NUMBERS + 1)))
    with pytest.raises(DataError, match=r"makes 16385 numbers an image; at most 16384 are taken"):
        fitted_columns(FeatureTable(file), is_train, None)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,size\n")
    with pytest.raises(DataError, match=r"has no rows|is of type null"):
        fitted_columns(FeatureTable(tmp_path / "t.csv"), is_train, None)
