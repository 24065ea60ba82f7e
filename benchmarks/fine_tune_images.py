"""The image folders of benchmarks/fine_tune.py."""

import gzip
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

SHORT_SIDE, BLOCK, PATCH = 1024, 256, 128
# Blocks of a photograph and patches of a block, by split.
BLOCKS: Final = {"train": (10, 1), "val": (4, 2), "test": (6, 4)}
DIGITS: Final = {"train": 300, "val": 100, "test": 297}
FASHION_IMAGES: Final = {"train": 4000, "val": 500}
FEW_FASHION_IMAGES: Final = {"train": 300, "val": 100, "test": 1000}


def write_split(folder: Path, images: Iterator[tuple[str, Any]]) -> None:
    """Writes images, given with their classes, as PNG files."""
    import cv2

    for i, (label, image) in enumerate(images):
        (folder / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / label / f"{i:05}.png"), image)


def write_photographs(source: Path, folder: Path) -> None:
    """Writes the patches of the photographs; each block of a photograph goes to one split."""
    if folder.is_dir():
        return
    files = sorted(source.glob("*.jpg"))
    if not files:
        sys.exit(f"error: no photographs in {source}; see --help for where they come from")
    for split in BLOCKS:
        write_split(folder / split, _patches(files, split))


def _patches(files: list[Path], split: str) -> Iterator[tuple[str, Any]]:
    import cv2

    before = 0
    for name in BLOCKS:
        if name == split:
            break
        before += BLOCKS[name][0]
    num_blocks, num_patches = BLOCKS[split]
    for number, file in enumerate(files):
        photograph = cv2.imread(str(file))
        scale = SHORT_SIDE / min(photograph.shape[:2])
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows, columns = (side // BLOCK for side in photograph.shape[:2])
        blocks = np.random.default_rng(number).permutation(rows * columns)
        for block in blocks[before : before + num_blocks]:
            top, left = int(block) // columns * BLOCK, int(block) % columns * BLOCK
            corners = [(top, left), (top + PATCH, left + PATCH), (top, left + PATCH)]
            for y, x in [*corners, (top + PATCH, left)][:num_patches]:
                yield file.stem, photograph[y : y + PATCH, x : x + PATCH]


def write_digits(folder: Path, counts: Mapping[str, int] = DIGITS) -> None:
    """Writes digits, equally many of each class: 300 train, 100 val, 297 test if not told."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    _write_shares(folder, images, digits.target, counts)


def write_fashion(source: Path, folder: Path, counts: Mapping[str, int] = FASHION_IMAGES) -> None:
    """Writes a part of Fashion-MNIST's training images."""
    if folder.is_dir():
        return

    def read(name: str, header: int) -> Any:
        return np.frombuffer(gzip.decompress((source / name).read_bytes()), np.uint8, -1, header)

    if not source.is_dir():
        sys.exit(f"error: no folder {source}; see --help for where Fashion-MNIST comes from")
    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    # Names unlike those of the digits: a head for the same classes would be kept.
    labels = np.char.add("item", read("train-labels-idx1-ubyte.gz", 8).astype(str))
    _write_shares(folder, images, labels, counts)


def _write_shares(folder: Path, images: Any, labels: Any, counts: Mapping[str, int]) -> None:
    """Writes a random share of the images for each split, equally many of each class."""
    if folder.is_dir():
        return
    from sklearn.model_selection import train_test_split

    rest = list(range(len(labels)))
    for split, count in counts.items():
        chosen, rest = train_test_split(
            rest, train_size=count, stratify=labels[rest], random_state=0
        )
        write_split(folder / split, ((str(labels[i]), images[i]) for i in chosen))
