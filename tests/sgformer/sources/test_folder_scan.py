import os
from pathlib import Path

import pytest

from sgformer.sources.folder_scan import scan
from sgformer.sources.image_files import is_hidden


def make(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(path.name))
    return root


def test_images_come_sorted_with_sizes_and_times(tmp_path: Path) -> None:
    make(tmp_path, "train/b/10.JPG", "train/b/sub/9.png", "train/a/1.gif", "val/a/1.png")
    found = scan(tmp_path, ("train", "val", "test"))
    assert found.names == ("train/a/1.gif", "train/b/10.JPG", "train/b/sub/9.png", "val/a/1.png")
    assert found.sizes.tolist() == [5, 6, 5, 5]
    assert found.times[0] == (tmp_path / "train/a/1.gif").stat().st_mtime_ns
    assert found.class_folders == {"train": ("a", "b"), "val": ("a",)}
    assert set(found.folder_times) == {
        "", "train", "val", "train/a", "train/b", "train/b/sub", "val/a",
    }  # fmt: skip
    assert found.notes == ()


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "._1.png", ".DS_Store", "Thumbs.db", "@eaDir", "__MACOSX",
     ".thumbnails", "lost+found", "$RECYCLE.BIN", "desktop.ini"],
)  # fmt: skip
def test_what_systems_leave_beside_images_is_hidden(tmp_path: Path, name: str) -> None:
    assert is_hidden(name)
    make(tmp_path, "train/a/1.png", f"train/{name}/1.png", f"train/a/{name}/2.png", "val/a/1.png")
    found = scan(tmp_path, ("train",))
    assert found.names == ("train/a/1.png",)
    assert found.class_folders == {"train": ("a",)}
    first = min(f"train/{name}", f"train/a/{name}")
    assert found.notes == (f"hidden files and folders passed over: 2, such as {first!r}",)


def test_what_is_no_image_is_counted_by_kind(tmp_path: Path) -> None:
    make(
        tmp_path, "train/a/1.png", "train/a/1.heic", "train/a/2.heic", "train/a/notes.txt",
        "train/a/README", "train/list.csv", "validation/a/1.png",
    )  # fmt: skip
    (tmp_path / "train/a/far").symlink_to(tmp_path / "validation")
    os.mkfifo(tmp_path / "train/a/pipe.png")
    found = scan(tmp_path, ("train", "val"))
    assert found.names == ("train/a/1.png",)
    assert found.notes == (
        "files passed over that are of no known image format: 4 (1 without suffix, 2 .heic, "
        "1 .txt), such as 'train/a/1.heic'",
        "links to folders below a class passed over: 1, such as 'train/a/far'",
        "files passed over that lie in no class folder: 1, such as 'train/list.csv'",
        "pipes, devices, links and folders passed over that are named as images: 1, such as "
        "'train/a/pipe.png'",
        "folders passed over that are not named train, val or test: 1, such as 'validation'",
    )


def test_whoever_waits_hears_how_many_files_have_been_found(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/a/2.png", "train/b/1.png")
    told: list[int] = []
    scan(tmp_path, ("train",), told.append)
    assert sorted(told) == told
    assert told[-1] == 3
