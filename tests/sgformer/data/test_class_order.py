import json
import re
from pathlib import Path

import pytest
from data_sets import write_csv

from sgformer.data.class_order import order_file
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError

ORDER = ["7", "3"]


@pytest.fixture
def manifest(own_image_folder: Path) -> Path:
    return write_csv(own_image_folder, own_image_folder)


def write_order(manifest: Path, content: object) -> None:
    order_file(manifest).write_text(json.dumps(content))


def test_an_extended_manifest_has_its_own_order_of_classes(manifest: Path) -> None:
    assert order_file(manifest).name == "images.classes.json"
    write_order(manifest, ORDER)
    folder = read_image_folder(DataConfig(data_dir=manifest))
    assert folder.classes == ("7", "3", "0", "1", "2", "4", "5", "6", "8", "9")
    for split in folder.splits.values():
        names = {name.split("/")[1] for name, label in zip(split.names, split.labels, strict=True)
                 if label == 0}  # fmt: skip
        assert names == {"7"}


def test_an_extended_set_keeps_its_order_when_the_file_is_gone_and_another_order_is_another_set(
    manifest: Path, tmp_path: Path
) -> None:
    config = DataConfig(
        data_dir=manifest, image_size=32, crop_pct=1.0, cache_dir=tmp_path / "cache"
    )
    plain = load_image_data(config)
    write_order(manifest, ORDER)
    ordered = load_image_data(config)
    assert ordered.classes[:2] == ("7", "3")
    assert ordered.images.id != plain.images.id
    order_file(manifest).unlink()
    assert load_image_data(config, expected=ordered.images.id).classes == ordered.classes
    assert load_image_data(config, expected=plain.images.id).classes == plain.classes


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (["7", "cat"], "the order of its classes (images.classes.json) has no images of 'cat'"),
        (["7", "7"], "the order of its classes (images.classes.json) has two equal names"),
        ({"7": 0}, "must be a list of the names of classes, as classes.json is"),
    ],
)
def test_a_wrong_order_of_an_extended_set_is_refused(
    content: object, problem: str, manifest: Path
) -> None:
    write_order(manifest, content)
    with pytest.raises(DataError, match=re.escape(problem)):
        read_image_folder(DataConfig(data_dir=manifest))


def test_an_unreadable_order_of_an_extended_set_is_refused(manifest: Path) -> None:
    order_file(manifest).write_text("[")
    with pytest.raises(
        DataError, match=r"cannot read the order of the classes in .*classes\.json"
    ):
        read_image_folder(DataConfig(data_dir=manifest))
