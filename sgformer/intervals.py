"""Intervals of shares of images; knows no torch."""

import math


def share_interval(share: float, num_images: int) -> tuple[float, float]:
    """The 95 % interval of a share of images, by Wilson."""
    from scipy.stats import binomtest

    found = binomtest(round(share * num_images), num_images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def paired_interval(lost: int, won: int, num_images: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same images: won less lost.

    Source: Agresti and Min, Statistics in Medicine 24 (2005): Wald's interval of paired shares,
    with half an image added to each cell.

    Args:
        lost: Images that only the first share counts.
        won: Images that only the second share counts.
        num_images: All images.
    """
    more, moved = won - lost, lost + won + 1
    margin = 1.96 * math.sqrt(moved - more**2 / (num_images + 2)) / (num_images + 2)
    middle = more / (num_images + 2)
    return max(-1.0, middle - margin), min(1.0, middle + margin)
