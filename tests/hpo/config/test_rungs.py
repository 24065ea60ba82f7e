import pytest

from hpo.config.rungs import first_rung, half_way, next_rung, rungs, rungs_and_below


@pytest.mark.parametrize(
    ("max_epochs", "first", "expected"),
    [
        (52, None, (8, 15, 28, 52)), (52, 4, (4, 8, 14, 27, 52)), (12, None, (2, 4, 7, 12)),
        (3, None, (1, 2, 3)), (2, None, (1, 2)), (1, None, (1,)), (10, 10, (10,)),
        (10, 40, (10,)), (90, 10, (10, 17, 30, 52, 90)),
    ],
)  # fmt: skip
def test_rungs_are_a_geometric_sequence_up_to_the_last_epoch(
    max_epochs: int, first: int | None, expected: tuple[int, ...]
) -> None:
    assert rungs(max_epochs, first) == expected
    assert first_rung(max_epochs, first) == expected[0]


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [(52, (2, 4, 8, 15, 28, 52)), (12, (1, 2, 4, 7, 12)), (3, (1, 2, 3)), (1, (1,))],
)
def test_epochs_below_the_rungs_may_become_the_first(
    max_epochs: int, expected: tuple[int, ...]
) -> None:
    assert rungs_and_below(max_epochs) == expected


@pytest.mark.parametrize(("epoch", "expected"), [(0, 8), (7, 8), (8, 15), (51, 52), (52, 52)])
def test_the_next_rung_is_later_or_the_last(epoch: int, expected: int) -> None:
    assert next_rung(epoch, rungs(52)) == expected


@pytest.mark.parametrize(("first", "expected"), [(8, 4), (5, 2), (4, 2), (3, 0), (1, 0)])
def test_half_way_to_an_early_first_rung_nothing_is_told(first: int, expected: int) -> None:
    assert half_way(first) == expected
