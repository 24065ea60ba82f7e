import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sgformer.data.image_data import load_image_data
from sgformer.data_check.check import ClassSizes, DataCheck, SplitFound, check_folder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.equal_images import EqualAcross, EqualImages


def check(folder: Path) -> DataCheck:
    return check_folder(DataConfig(data_dir=folder), lambda _: None, lambda *_: None)


def refusal_of_a_search(folder: Path, cache_dir: Path) -> str | None:
    config = DataConfig(data_dir=folder, image_size=32, crop_pct=1.0, cache_dir=cache_dir)
    try:
        load_image_data(config)
    except DataError as error:
        return str(error)
    return None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def cut_all(folder: Path) -> None:
    for path in folder.iterdir():
        cut(path)


def add_many(folder: Path) -> None:
    """Adds 300 copies, so that a few unreadable images are fewer than 1 %."""
    for i in range(300):
        shutil.copy(folder / "train/1/0.png", folder / f"train/1/{i:03}.png")


def a_class_that_cannot_be_read(folder: Path) -> None:
    add_many(folder)
    cut_all(folder / "val" / "7")


CHANGES: dict[str, Callable[[Path], object]] = {
    "good": lambda _: None,
    "no val": lambda folder: shutil.rmtree(folder / "val"),
    "no train": lambda folder: (folder / "train").rename(folder / "training"),
    "a class that val lacks": lambda folder: shutil.rmtree(folder / "val" / "4"),
    "a class that train lacks": lambda folder: shutil.rmtree(folder / "train" / "4"),
    "an empty class": lambda folder: [p.unlink() for p in (folder / "test/4").iterdir()],
    "one unreadable image": lambda folder: cut(folder / "train/3/0.png"),
    "unreadable images": lambda folder: [cut_all(folder / "train" / c) for c in "35"],
    "an unreadable class": a_class_that_cannot_be_read,
    "one class": lambda folder: [
        shutil.rmtree(folder / s / c) for s in ("train", "val", "test") for c in "012345678"
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_check_refuses_what_a_search_refuses_and_says_the_same(
    own_image_folder: Path, tmp_path: Path, change: str
) -> None:
    CHANGES[change](own_image_folder)
    refused = check(own_image_folder).refused
    assert refused == refusal_of_a_search(own_image_folder, tmp_path / "cache")
    assert (refused is None) == (change in {"good", "no val", "one unreadable image"})


def test_images_and_classes_are_counted_as_a_search_splits_them(own_image_folder: Path) -> None:
    assert check(own_image_folder).splits == {
        "train": SplitFound(60, 10), "val": SplitFound(30, 10), "test": SplitFound(20, 10),
    }  # fmt: skip
    shutil.rmtree(own_image_folder / "val")
    found = check(own_image_folder)
    assert found.val_is_of_train
    assert found.splits == {
        "train": SplitFound(50, 10), "val": SplitFound(10, 10), "test": SplitFound(20, 10),
    }  # fmt: skip


def test_what_was_found_is_told_also_of_a_refused_folder(own_image_folder: Path) -> None:
    for path in (own_image_folder / "train/4").iterdir():
        path.unlink()
    shutil.copytree(own_image_folder / "test/1", own_image_folder / "test/extra")
    found = check(own_image_folder)
    assert found.refused is not None
    assert found.splits["train"] == SplitFound(54, 10)
    assert found.splits["test"] == SplitFound(22, 11)
    assert found.class_sizes == ClassSizes("train", 6, "9", 6.0, 0, "4")
    assert found.class_sizes.ratio == float("inf")
    assert found.equal.within["test"].images == 2
    assert found.formats == {"PNG": 106}


def test_a_folder_without_splits_is_refused_and_its_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    found = check(tmp_path)
    assert found.refused is not None
    assert "has no train folder" in found.refused
    assert (found.splits, found.class_sizes, found.shorter_side) == ({}, None, None)
    assert found.passed_over == (
        "folders passed over that are not named train, val or test: 1, such as 'cat'",
    )


def test_leakage_is_found_across_the_splits_that_a_search_makes(own_image_folder: Path) -> None:
    folder = own_image_folder
    shutil.copy(folder / "train/3/0.png", folder / "test/3/copy.png")
    shutil.copy(folder / "train/3/1.png", folder / "val/5/wrong.png")
    equal = check(folder).equal
    assert equal.across == (
        EqualAcross(1, ("val/5/wrong.png", "train/3/1.png"), "val", "train"),
        EqualAcross(1, ("test/3/copy.png", "train/3/0.png"), "test", "train"),
    )
    assert equal.in_several_classes == EqualImages(2, ("train/3/1.png", "val/5/wrong.png"))
    shutil.rmtree(folder / "val")
    for i in range(20):  # some of these are split off as val
        shutil.copy(folder / "train/1/0.png", folder / f"train/1/copy{i}.png")
    equal = check(folder).equal
    assert ("val", "train") in [(one.split, one.earlier) for one in equal.across]


def test_unreadable_copies_leak_nothing(own_image_folder: Path) -> None:
    cut(own_image_folder / "train/3/0.png")
    shutil.copy(own_image_folder / "train/3/0.png", own_image_folder / "val/5/copy.png")
    found = check(own_image_folder)
    assert found.unreadable == ("train/3/0.png", "val/5/copy.png")
    assert (found.equal.across, found.equal.in_several_classes) == ((), None)


def test_a_class_in_two_unicode_forms_is_one(own_image_folder: Path) -> None:
    folder = own_image_folder
    for split, name in (("train", "cafe\u0301"), ("val", "caf\u00e9"), ("test", "caf\u00e9")):
        (folder / split / "3").rename(folder / split / name)
    (folder / "train/cafe\u0301/1.png").unlink()
    shutil.copy(folder / "train/cafe\u0301/0.png", folder / "val/caf\u00e9/copy.png")
    found = check(folder)
    assert found.refused is None
    assert found.equal.in_several_classes is None
    assert found.splits["test"].classes == 10
    assert found.class_sizes is not None
    assert found.class_sizes.smallest_class == "cafe\u0301"  # as its folder in train


def test_nothing_is_written(
    own_image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SGFORMER_CACHE", str(cache))
    monkeypatch.setattr("sgformer.sources.kept_list.KEPT_FROM", 1)
    monkeypatch.setattr("sgformer.sources.kept_list.SECONDS_SETTLED", -9)  # else none is kept
    before = sorted(own_image_folder.rglob("*"))
    check(own_image_folder)
    assert sorted(own_image_folder.rglob("*")) == before
    assert not cache.exists()
