"""Intervals of shares of images; knows no torch."""


def share_interval(share: float, num_images: int) -> tuple[float, float]:
    """The 95 % interval of a share of images, by Wilson."""
    from scipy.stats import binomtest

    found = binomtest(round(share * num_images), num_images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
