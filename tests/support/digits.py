"""Writes a part of scikit-learn's digits, small real images, as an image folder."""

from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

COUNTS = {"train": 6, "val": 3, "test": 2}  # images of each class


def digit_scans() -> list[list[np.ndarray]]:
    """Scans by class, 8x8 pixels, grey."""
    digits = load_digits()
    scale = 255 / 16
    return [
        [(image * scale).round().astype(np.uint8) for image in digits.images[digits.target == d]]
        for d in range(10)
    ]


def write_image_folder(root: Path) -> Path:
    """Writes 110 scans: six of each digit in train, three in val, two in test."""
    for digit, images in enumerate(digit_scans()):
        start = 0
        for split, count in COUNTS.items():
            folder = root / split / str(digit)
            folder.mkdir(parents=True)
            for i in range(start, start + count):
                assert cv2.imwrite(str(folder / f"{i}.png"), images[i])
            start += count
    return root
