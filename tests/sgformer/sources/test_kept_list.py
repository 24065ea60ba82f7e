import os
import shutil
from pathlib import Path

import pytest
from data_sets import write_parquet, write_parquet_manifest, write_shards

from sgformer.sources import kept_list
from sgformer.sources.folder_scan import scan
from sgformer.sources.image_files import ImageFiles
from sgformer.sources.kept_list import list_files
from sgformer.sources.listing import scan_images

SPLITS = ("train", "val")


@pytest.fixture(autouse=True)
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Keeps short lists, too, and counts scans."""
    scans: list[Path] = []

    def counted(root: Path, *arguments: object) -> ImageFiles:
        scans.append(root)
        return scan_images(root, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_list, "KEPT_FROM", 1)
    monkeypatch.setattr(kept_list, "scan_images", counted)
    return scans


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in ("train/a/1.png", "train/b/\udcff.png", "val/a/x y.png", "val/a/.hidden"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))
    settle(root)
    return root


def settle(root: Path) -> None:
    """Makes all folders look as if they had not changed for an hour."""
    for folder, _, _ in os.walk(root):
        status = Path(folder).stat()
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns - 3600 * 10**9))


def test_a_list_is_kept_and_used_again(root: Path, tmp_path: Path, scans: list[Path]) -> None:
    first = list_files(root, SPLITS, tmp_path / "lists")
    again = list_files(root, SPLITS, tmp_path / "lists")
    assert len(scans) == 1
    assert list(first) == list(again) == list(scan(root, SPLITS))
    assert (first.class_folders, first.notes, first.folder_times) == (
        again.class_folders, again.notes, again.folder_times,
    )  # fmt: skip
    assert len(first.notes) == 1
    assert len(list_files(root, ("train",), tmp_path / "lists")) == 2  # has a list of its own


@pytest.mark.parametrize("change", ["new", "gone", "renamed", "new class", "written over"])
def test_a_changed_folder_is_listed_anew(
    root: Path, tmp_path: Path, scans: list[Path], change: str
) -> None:
    list_files(root, SPLITS, tmp_path / "lists")
    image = root / "train/a/1.png"
    match change:
        case "new":
            (root / "val/a/new.png").touch()
        case "gone":
            image.unlink()
        case "renamed":
            image.rename(image.with_name("2.png"))
        case "new class":
            (root / "val/c").mkdir()
        case "written over":
            image.write_bytes(b"another image")
    found = list_files(root, SPLITS, tmp_path / "lists")
    assert len(scans) == 2
    assert list(found) == list(scan(root, SPLITS))


@pytest.mark.parametrize("kind", ["shards", "parquet", "manifest"])
def test_lists_of_other_data_sets_are_kept(
    image_folder: Path, tmp_path: Path, scans: list[Path], kind: str
) -> None:
    match kind:
        case "shards":
            data_set = write_shards(image_folder, tmp_path / "set")
        case "parquet":
            data_set = write_parquet(image_folder, tmp_path / "set")
        case _:
            data_set = write_parquet_manifest(image_folder, tmp_path)
    for path in (data_set, *data_set.rglob("*")):
        os.utime(path, (0, 0))
    first = list_files(data_set, SPLITS, tmp_path / "lists")
    again = list_files(data_set, SPLITS, tmp_path / "lists")
    assert len(scans) == 1
    assert list(first) == list(again)
    if kind == "manifest":
        os.utime(data_set, (1, 1))
    else:
        assert again.places is not None
        assert first.places is not None
        assert again.places.containers == first.places.containers
        assert (again.places.where == first.places.where).all()
        added = next(data_set.rglob("train-*"))
        shutil.copy(added, added.with_name("a-" + added.name))
    assert len(list_files(data_set, SPLITS, tmp_path / "lists")) >= len(first)
    assert len(scans) == 2


def test_a_folder_that_has_just_changed_is_not_kept(
    root: Path, tmp_path: Path, scans: list[Path]
) -> None:
    (root / "val/a/new.png").touch()
    list_files(root, SPLITS, tmp_path / "lists")
    list_files(root, SPLITS, tmp_path / "lists")
    assert len(scans) == 2


def test_a_damaged_list_is_made_anew(root: Path, tmp_path: Path, scans: list[Path]) -> None:
    list_files(root, SPLITS, tmp_path / "lists")
    (file,) = (tmp_path / "lists").iterdir()
    whole = file.read_bytes()
    for content in (b"", b"no list", whole[: len(whole) // 2]):
        file.write_bytes(content)
        assert len(list_files(root, SPLITS, tmp_path / "lists")) == 3
    assert len(scans) == 4


def test_a_list_that_cannot_be_written_is_not_needed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").touch()  # no folder
    assert len(list_files(root, SPLITS, tmp_path / "lists")) == 3


def test_lists_that_nobody_uses_are_removed(root: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "old.npz").touch()
    os.utime(lists / "old.npz", (0, 0))
    list_files(root, SPLITS, lists)
    assert len(list(lists.iterdir())) == 1
    assert not (lists / "old.npz").exists()
