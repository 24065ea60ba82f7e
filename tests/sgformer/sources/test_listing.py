from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sets import write_csv, write_parquet, write_parquet_manifest, write_shards

from sgformer.errors import DataError
from sgformer.sources.image_files import SPLITS
from sgformer.sources.listing import Kind, kind_of, scan_images, splits_in


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


def touch(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    "beside",
    ["train.tar", "ILSVRC2012_img_train.tar", "train.tar.gz", "train/index.parquet",
     "data/train-features.parquet", "val_annotations.parquet", "train/cat.parquet/1.png"],
)  # fmt: skip
def test_class_folders_go_before_what_lies_beside_them(tmp_path: Path, beside: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/1.png", beside)
    assert kind_of(tmp_path) == Kind.FOLDER
    if beside == "train.tar":
        notes = scan_images(tmp_path, SPLITS).notes
        assert notes == (
            "tar and parquet files passed over beside the class folders: 1, such as 'train.tar'",
        )


@pytest.mark.parametrize(
    "beside", ["train-0.tar.idx", "train-0.tar.md5", "._train-0.tar", "train-0.json", "x.parquet"]
)
def test_files_beside_shards_are_no_shards(tmp_path: Path, beside: str) -> None:
    touch(tmp_path, "train-0.tar", beside)
    assert kind_of(tmp_path) == Kind.SHARDS
    assert splits_in(tmp_path) == ("train",)


def test_a_folder_of_shards_and_parquet_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train-0.tar", "val-0.parquet")
    with pytest.raises(DataError, match="has tar shards and parquet files"):
        kind_of(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.zip").touch()
    with pytest.raises(DataError, match=r"neither a folder nor a .csv or .parquet file: .*zip"):
        kind_of(tmp_path / "images.zip")


def test_a_parquet_file_with_bytes_is_no_manifest(tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    columns = {"image": [b"x"], "path": ["a.png"], "label": ["cat"]}
    pq.write_table(pa.table(columns), file)
    assert kind_of(file) == Kind.PARQUET
