import numpy as np
import pytest

from sgformer.intervals import paired_interval, share_interval


@pytest.mark.parametrize(
    ("share", "num_images", "interval"),
    # By R's prop.test(x, n, correct = FALSE).
    [(0.5, 10, (0.2366, 0.7634)), (1.0, 20, (0.8389, 1.0)), (0.0, 20, (0.0, 0.1611))],
)
def test_share_intervals(share: float, num_images: int, interval: tuple[float, float]) -> None:
    assert share_interval(share, num_images) == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize(
    ("lost", "won", "low", "high"),
    [(0, 0, -0.0192, 0.0192), (0, 5, 0.0024, 0.0956), (5, 0, -0.0956, -0.0024)],
)
def test_a_difference_of_shares_has_an_interval(
    lost: int, won: int, low: float, high: float
) -> None:
    found = paired_interval(lost, won, 100)
    assert found == (pytest.approx(low, abs=0.001), pytest.approx(high, abs=0.001))


def test_an_interval_of_a_difference_of_shares_holds_with_95_percent() -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(2000):  # 100 images, of which 6 % are lost and 10 % won
        won, lost, _ = random.multinomial(100, [0.1, 0.06, 0.84])
        low, high = paired_interval(int(lost), int(won), 100)
        covered += low <= 0.04 <= high
    assert 0.93 < covered / 2000 < 0.97


def test_a_difference_of_shares_of_one_image_stays_in_range() -> None:
    assert paired_interval(0, 1, 1)[1] == 1.0
