from pathlib import Path

import pytest

from sgformer.data.image_folder import read_image_folder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.trained_images import TrainedImages, digests
from sgformer.sources.folder_scan import scan

FILES = [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in range(3)]


def make(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def described(root: Path) -> TrainedImages:
    folder = read_image_folder(DataConfig(data_dir=root))
    assert folder.files is not None
    return TrainedImages(folder.val_is_of_train, digests(folder.files))


def test_a_digest_is_of_names_and_sizes_below_the_split(tmp_path: Path) -> None:
    here, there = make(tmp_path / "here", *FILES), make(tmp_path / "there", *FILES)
    before = digests(scan(here, ("train", "val")))
    assert before == digests(scan(there, ("train", "val")))
    assert before["train"] == before["val"]
    (here / "train/a/0.png").write_bytes(b"longer")
    after = digests(scan(here, ("train", "val")))
    assert after["train"] != before["train"]
    assert after["val"] == before["val"]


def test_val_of_a_changed_train_folder_is_refused_and_a_folder_of_its_own_is_not(
    tmp_path: Path,
) -> None:
    train_only = [file for file in FILES if file.startswith("train")]
    for name, files in (("parts", train_only), ("folders", FILES)):
        root = make(tmp_path / name, *files)
        before = described(root)
        before.refuse_mixed_val(described(root), root)
        make(root, "train/a/new.png")
        after = described(root)
        assert before.has_same("val", after) == (name == "folders")
        if name == "parts":
            with pytest.raises(DataError, match="it is not known which of them the model has not"):
                before.refuse_mixed_val(after, root)
        else:
            before.refuse_mixed_val(after, root)


def test_parts_of_train_are_never_the_same_as_folders(tmp_path: Path) -> None:
    known = described(make(tmp_path, *FILES))
    assert not known.has_same("train", TrainedImages(val_of_train=True, digests=known.digests))


def test_train_that_was_trained_on_whole_is_not_divided(tmp_path: Path) -> None:
    before = described(make(tmp_path / "before", *FILES))
    after = described(make(tmp_path / "after", *(f for f in FILES if f.startswith("train"))))
    other = described(
        make(tmp_path / "other", *(f"train/{c}/{i}.jpg" for c in "ab" for i in "12"))
    )
    before.refuse_mixed_val(other, tmp_path / "other")
    with pytest.raises(
        DataError, match=r"trained on all images in .*train, and .*val is not there"
    ):
        before.refuse_mixed_val(after, tmp_path / "after")
