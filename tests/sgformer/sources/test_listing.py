from pathlib import Path

import pytest
from data_sets import write_csv, write_parquet, write_parquet_manifest, write_shards

from sgformer.errors import DataError
from sgformer.sources.listing import Kind, kind_of, splits_in


def test_kinds_and_splits(image_folder: Path, tmp_path: Path) -> None:
    sets = {
        Kind.FOLDER: [image_folder],
        Kind.SHARDS: [write_shards(image_folder, tmp_path / "shards")],
        Kind.PARQUET: [write_parquet(image_folder, tmp_path / "parquet")],
        Kind.MANIFEST: [
            write_csv(image_folder, image_folder.parent),
            write_parquet_manifest(image_folder, tmp_path),
        ],
    }
    for kind, roots in sets.items():
        for root in roots:
            assert kind_of(root) == kind
            assert splits_in(root) == ("train", "val", "test")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/1.png", "train-0.tar"], "has tar shards and class folders"),
        (["train-0.parquet", "val-0.tar"], "has tar shards and parquet files"),
        (["train-0.parquet", "val/a/1.png"], "has parquet files and class folders"),
    ],
)
def test_a_folder_of_several_kinds_is_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        kind_of(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.zip").touch()
    with pytest.raises(DataError, match=r"neither a folder nor a .csv or .parquet file: .*zip"):
        kind_of(tmp_path / "images.zip")
