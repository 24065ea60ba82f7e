"""Writes tables of features of an image folder's images."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Cells = dict[str, object]


def names_of(folder: Path) -> list[str]:
    """The images' names, such as train/3/1.png, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*/*"))


def write_csv(path: Path, names: Sequence[str], cells: Callable[[str], Cells]) -> Path:
    """A CSV file with a row an image, of `path` and what `cells` returns for its name."""
    rows = [{"path": name} | cells(name) for name in names]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_told(path: Path, folder: Path) -> Path:
    """A table whose number tells the digit, and whose category tells nothing."""
    colours = ("red", "blue")

    def cells(name: str) -> Cells:
        digit = int(name.split("/")[1])
        return {"hint": 100 + 10 * digit, "colour": colours[int(Path(name).stem) % 2]}

    return write_csv(path, names_of(folder), cells)


def write_npz(path: Path, names: Sequence[str], vectors: np.ndarray) -> Path:
    np.savez(path, names=np.array(names), vectors=vectors)
    return path
