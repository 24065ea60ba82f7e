import json
from typing import Any

import numpy as np
import pytest

from sgformer.errors import DataError
from sgformer.features.columns import Column, FeatureColumns, Rows
from sgformer.features.encoders import HashingEncoder

pytestmark = pytest.mark.fuse

COLUMNS = FeatureColumns(
    (
        Column("size", "number", 1),
        Column("colour", "category", 2, ("blue", "red")),
        Column("embedding", "vector", 2),
    )
)
VALUES: dict[str, Any] = {
    "size": np.array([1.5, 2.0]),
    "colour": ["red", "green"],
    "embedding": np.array([[3, 4], [5, 6]]),
}


def rows(**changes: Any) -> Rows:
    return Rows(["a.png", "b.png"], VALUES | changes, "t.csv")


def test_a_vector_has_numbers_ones_of_categories_and_vectors() -> None:
    expected = [[1.5, 0, 1, 3, 4], [2, 0, 0, 5, 6]]  # green is no category of the train images
    assert COLUMNS.encoded(rows()).tolist() == expected
    assert COLUMNS.size == 5


def test_columns_outlive_json() -> None:
    columns = FeatureColumns((*COLUMNS.columns, Column("text", "text", 256)), "hashing")
    metadata = json.loads(json.dumps(columns.as_metadata()))
    assert FeatureColumns.from_metadata(metadata) == columns
    assert FeatureColumns.from_metadata({}) is None
    assert columns.in_words() == (
        "size (number), colour (2 categories), embedding (vector of 2), text (text of 256)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": np.array([1, np.nan])}, r"t\.csv: 'size' of 'b\.png' is nan, no finite number"),
        ({"size": np.array([1e39, 1])}, r"'size' of 'a\.png' is inf, no finite number; fill it"),
        ({"embedding": np.array([[3, 4], [5, np.inf]])}, r"'embedding' of 'b\.png' is inf"),
        ({"embedding": np.zeros((2, 3))}, r"'embedding' has 3 numbers a row; the model takes 2"),
        ({"size": ["1", "2"]}, r"t\.csv: 'size' has text; the model takes numbers"),
        ({"colour": np.zeros(2)}, r"t\.csv: 'colour' has numbers; the model takes text"),
    ],
)
def test_a_value_that_the_model_cannot_take_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        COLUMNS.encoded(rows(**changes))


def test_a_column_that_is_missing_is_named() -> None:
    values = {"size": VALUES["size"]}
    with pytest.raises(DataError, match=r"t\.csv lacks 'colour', 'embedding'; the model takes si"):
        COLUMNS.encoded(Rows(["a", "b"], values, "t.csv"))


def test_the_values_of_one_image_are_encoded_by_column_or_as_they_are() -> None:
    by_column = {"embedding": [3, 4], "size": 1.5, "colour": "red"}
    expected = [1.5, 0, 1, 3, 4]
    assert COLUMNS.encoded_values(by_column).tolist() == expected
    assert COLUMNS.encoded_values(expected).tolist() == expected


def test_a_text_of_one_image_is_encoded() -> None:
    encoder = HashingEncoder()
    columns = FeatureColumns((Column("text", "text", encoder.size),), encoder.name)
    vector = columns.encoded_values({"text": "two words"}, encoder)
    assert np.array_equal(vector, encoder.encode(["two words"])[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 1}, r"features lacks 'colour', 'embedding'"),
        ({"weight": 1}, r"features: unknown 'weight'; the model takes size"),
        ({"size": 1, "colour": "red", "embedding": [1]}, r"'embedding' has 1 numbers a row"),
        ({"size": "1", "colour": "red", "embedding": [1, 2]}, r"'size' has text; the model take"),
        ({"size": [[1], 2], "colour": "red", "embedding": [1, 2]}, r"'size' is neither a number"),
        ([1, 2], r"features: has 2 numbers; the model takes 5: size"),
        ([1, 2, 3, 4, float("nan")], r"features: has a value that is no finite number"),
        ("red", r"features: takes an object by column, or a list of 5 numbers, got str"),
    ],
)
def test_values_of_another_form_are_refused(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        COLUMNS.encoded_values(values)
