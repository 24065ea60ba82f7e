from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

from hpo.cli.demo import write_digits
from sgformer.data.image_folder import read_image_folder
from sgformer.data_config import DataConfig


def test_all_scans_are_written_once_in_stratified_splits(tmp_path: Path) -> None:
    folder = tmp_path / "digits-images"
    write_digits(folder)
    found = read_image_folder(DataConfig(data_dir=folder))
    assert {name: len(images) for name, images in found.splits.items()} == {
        "train": 1200, "val": 300, "test": 297,
    }  # fmt: skip
    paths = [folder / name for name in found.names]
    assert len({path.stem for path in paths}) == 1797
    digits = load_digits()
    for path in paths[::200]:
        expected = (digits.images[int(path.stem)] * 255 / 16).round()
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), expected)
        assert path.parent.name == str(digits.target[int(path.stem)])
    counts = np.bincount(found.split("val").labels)
    assert counts.min() >= 28


def test_images_that_are_there_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "digits-images"
    folder.mkdir()
    write_digits(folder)
    assert list(folder.iterdir()) == []
