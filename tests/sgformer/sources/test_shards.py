import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from data_sets import write_shards

from sgformer.errors import DataError
from sgformer.sources.image_files import SPLITS, ImageFiles, not_told
from sgformer.sources.shards import find_shards, scan_shards
from sgformer.sources.source import source_of


def write(path: Path, members: dict[str, bytes | None], **options: object) -> Path:
    """A tar; a member without content is a link."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "elsewhere"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return path


def scan(root: Path) -> ImageFiles:
    return scan_shards(root, SPLITS, not_told)


def test_images_are_those_that_webdataset_reads(image_folder: Path, tmp_path: Path) -> None:
    root = write_shards(image_folder, tmp_path / "set")
    files = scan(root)
    source = source_of(root, files.names, files.places)
    found = {}
    for name in files.names:
        split, class_name, shard, member = name.split("/")
        found[split, shard, member] = class_name, source.read(name)
    expected = {}
    for split, shards in find_shards(root).items():
        for shard in shards:
            for sample in webdataset.WebDataset(str(root / shard), shardshuffle=False):
                member = f"{sample['__key__']}.png"
                expected[split, shard, member] = sample["cls"].decode(), sample["png"]
    assert found == expected
    assert list(files.class_folders) == list(SPLITS)
    assert len(files) == 110


@pytest.mark.parametrize(
    ("name", "split"),
    [("train-000.tar", "train"), ("val-0.tar", "val"), ("test.tar", "test"),
     ("imagenet1k-validation-63.tar", "val"), ("contest-1.tar", None), ("training-1.tar", None),
     ("train-1.txt", None)],
)  # fmt: skip
def test_a_shard_is_named_after_its_split(tmp_path: Path, name: str, split: str | None) -> None:
    write(tmp_path / name, {})
    assert find_shards(tmp_path) == ({split: (name,)} if split else {})


@pytest.mark.parametrize(
    ("members", "class_name"),
    [
        ({"a.jpg": b"x", "a.cls": b" 07 \n"}, "07"),
        ({"cat/a.jpg": b"x"}, "cat"),
        ({"./train/cat/sub/a.jpg": b"x"}, "cat"),
        ({"cat/a.jpg": b"x", "cat/a.cls": b"dog", "other/a.cls": b"no"}, "dog"),
        ({"a.left.jpg": b"x", "a.json": b"{}", "a.cls": "größe, 'x'".encode()}, "größe, 'x'"),
        ({"cat/" + 200 * "long" + ".jpg": b"x"}, "cat"),
    ],
)
def test_the_class_is_that_of_the_class_file_or_of_the_folder(
    tmp_path: Path, members: dict[str, bytes], class_name: str
) -> None:
    write(tmp_path / "train-0.tar", members)
    files = scan(tmp_path)
    assert files.class_folders == {"train": (class_name,)}
    (name,) = files.names
    assert source_of(tmp_path, files.names, files.places).read(name) == b"x"
    assert files.notes == ()


def test_what_is_no_image_is_counted_by_kind(tmp_path: Path) -> None:
    write(
        tmp_path / "train-0.tar",
        {"a.jpg": b"x", "cat/b.jpg": b"x", "cat/link.jpg": None, "cat/._b.jpg": b"x",
         "cat/b.mp4": b"x", "cat/c.jpg": b"x"},
    )  # fmt: skip
    files = scan(tmp_path)
    assert [name.rsplit("/", 1)[1] for name in files.names] == ["b.jpg", "c.jpg"]
    notes = " ".join(files.notes)
    assert "images passed over that have no class: 1, such as 'train-0.tar/a.jpg'" in notes
    assert "named as images: 1, such as 'train-0.tar/cat/link.jpg'" in notes
    assert "hidden files and folders passed over: 1" in notes
    assert "no known image format: 1 (1 .mp4)" in notes


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-0.tar", lambda content: content[:700], "damaged shard: .*train-0.tar"),
        ("train-0.tar", lambda _: b"no tar" * 200, "damaged shard: .*train-0.tar"),
        ("train-0.tar.gz", lambda content: content, "compressed shard .* decompress it"),
        ("train-0.tgz", lambda content: content, "compressed shard .* decompress it"),
    ],
)
def test_shards_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, change: object, message: str
) -> None:
    path = write(tmp_path / name, {"cat/a.jpg": 2000 * b"x"})
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


def test_a_class_with_a_slash_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.tar", {"a.jpg": b"x", "a.cls": b"n/a"})
    with pytest.raises(DataError, match=r"a class cannot be named 'n/a': .*train-0.tar: 'a.cls'"):
        scan(tmp_path)


def test_a_member_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "train-0.tar", {"cat/a.jpg": b"x"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("cat/a.jpg"), io.BytesIO())
    files = scan(tmp_path)
    assert len(files) == 1
    assert files.notes == (
        "images passed over that are listed twice: 1, such as 'train/cat/train-0.tar/cat/a.jpg'",
    )
