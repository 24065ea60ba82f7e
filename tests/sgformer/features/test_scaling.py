import numpy as np
import pytest

from sgformer.features.columns import Column, FeatureColumns
from sgformer.features.scaling import ROWS_AT_A_TIME, fitted_scaling

pytestmark = pytest.mark.fuse


def test_means_and_deviations_are_those_of_the_train_rows() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(1e4, 3, (2 * ROWS_AT_A_TIME + 7, 2)).astype(np.float32)
    matrix[::5] = np.nan  # images without features
    rows = np.arange(100, len(matrix))
    found = fitted_scaling(matrix, rows, FeatureColumns((Column("v", "vector", 2),)))
    there = matrix[rows][~np.isnan(matrix[rows, 0])].astype(np.float64)
    assert found.mean == pytest.approx(there.mean(0))
    assert found.std == pytest.approx(there.std(0))


def test_categories_and_constant_numbers_stay_as_they_are() -> None:
    columns = FeatureColumns((Column("c", "category", 1, ("x",)), Column("n", "number", 1)))
    matrix = np.array([[0, 7], [1, 7]], np.float32)
    found = fitted_scaling(matrix, np.arange(2), columns)
    assert found.mean.tolist() == [0, 7]
    assert found.std.tolist() == [1, 1]


def test_the_numbers_of_a_text_have_one_deviation() -> None:
    matrix = np.zeros((100, 2), np.float32)
    matrix[0, 0], matrix[:50, 1] = 1, 1  # a rare word, and a frequent one
    found = fitted_scaling(matrix, np.arange(100), FeatureColumns((Column("t", "text", 2),)))
    assert found.std[0] == found.std[1] == pytest.approx(np.sqrt(matrix.var(0).mean()))
