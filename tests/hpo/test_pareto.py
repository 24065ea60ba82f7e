import numpy as np
import pytest

from hpo.pareto import best_rows, front, knee


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@pytest.mark.parametrize("num_objectives", [1, 2, 3])
def test_the_front_is_what_no_row_dominates(num_objectives: int) -> None:
    losses = np.random.default_rng(0).integers(0, 6, (60, num_objectives)).astype(float)
    expected = [not any(dominates(other, row) for other in losses) for row in losses]
    assert front(losses).tolist() == expected


def test_whole_fronts_are_taken_first() -> None:
    losses = np.array([[3.0, 3.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    assert set(best_rows(losses, 2)) == {1, 2}
    assert set(best_rows(losses, 3)) == {1, 2, 3}
    assert set(best_rows(losses, 9)) == set(range(5))


def test_of_a_front_that_does_not_fit_the_ends_and_the_middle_stay() -> None:
    x = np.linspace(0.0, 1.0, 11)
    losses = np.stack([x, 1e7 * (1 - x)], axis=1)
    assert best_rows(losses, 1).tolist() == [0]
    assert sorted(best_rows(losses, 3)) == [0, 5, 10]


def test_with_one_objective_the_best_rows_are_the_smallest() -> None:
    losses = np.random.default_rng(1).random((50, 1))
    assert best_rows(losses, 7).tolist() == np.argsort(losses[:, 0])[:7].tolist()


def test_the_knee_lies_farthest_below_the_line_through_the_ends() -> None:
    losses = np.array([[0.0, 1e7], [0.1, 2e6], [0.5, 1e6], [1.0, 0.0]])
    assert knee(losses) == 1


@pytest.mark.parametrize("losses", [[[0.5, 7.0]], [[0.0, 1.0], [1.0, 0.0]]])
def test_of_a_front_without_a_bend_the_first_is_the_knee(losses: list[list[float]]) -> None:
    assert knee(np.array(losses)) == 0
