import pytest

from sgformer.intervals import share_interval


@pytest.mark.parametrize(
    ("share", "num_images", "interval"),
    # By R's prop.test(x, n, correct = FALSE).
    [(0.5, 10, (0.2366, 0.7634)), (1.0, 20, (0.8389, 1.0)), (0.0, 20, (0.0, 0.1611))],
)
def test_share_intervals(share: float, num_images: int, interval: tuple[float, float]) -> None:
    assert share_interval(share, num_images) == pytest.approx(interval, abs=1e-4)
