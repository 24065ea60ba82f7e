import io
import tarfile
from collections.abc import Callable
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
     ("imagenet1k-validation-63.tar", "val"), ("train/00000.tar", "train"), ("Val-0.TAR", "val"),
     ("contest-1.tar", None), ("training-1.tar", None),
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
        ({"a.JPEG": b"x", "a.json": b"{}", "a.CLS": "größe, 'x'".encode()}, "größe, 'x'"),
        ({"cat/a.v2.jpg": b"x"}, "cat"),
        ({"/cat/a.jpg": b"x"}, "cat"),
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
        {"./": b"", "a.jpg": b"x", "cat/b.jpg": b"x", "cat/link.jpg": None, "cat/._b.jpg": b"x",
         "cat/b.mp4": b"x", "cat/c.jpg": b"x"},
    )  # fmt: skip
    files = scan(tmp_path)
    assert [name.rsplit("/", 1)[1] for name in files.names] == ["b.jpg", "c.jpg"]
    notes = " ".join(files.notes)
    assert "images passed over that have no class: 1, such as 'train-0.tar/a.jpg'" in notes
    assert "named as images: 1, such as 'train-0.tar/cat/link.jpg'" in notes
    assert "hidden files and folders passed over: 1" in notes
    assert "no known image format: 1 (1 .mp4)" in notes


def test_where_class_files_are_images_need_one(tmp_path: Path) -> None:
    write(
        tmp_path / "train-0.tar",
        {"cat/a.jpg": b"x", "cat/a.cls": b"dog", "cat/b.jpg": b"x", "cat/a.seg.png": b"x",
         "cat/c.jpg": b"x", "cat/c.cls": b""},
    )  # fmt: skip
    files = scan(tmp_path)
    assert files.names == ("train/dog/train-0.tar/cat/a.jpg",)
    assert "images passed over that have no class: 2" in " ".join(files.notes)
    assert "no known image format: 1 (1 .seg.png)" in " ".join(files.notes)


HEADER = tarfile.BLOCKSIZE
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in an image": lambda content: content[: HEADER + 200],
    "cut before a header": lambda content: content[: 2 * HEADER],
    "cut in a header": lambda content: content[: 2 * HEADER + 200],
    "a header's checksum": lambda content: content.replace(b"cat/b.jpg", b"cat/c.jpg"),
    "no tar": lambda _: b"no tar" * 200,
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_and_incomplete_shards_are_refused(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "train-0.tar", {"cat/a.jpg": 400 * b"x", "cat/b.jpg": b"x"})
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DataError, match=r"(damaged|incomplete) shard: .*train-0\.tar"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["train-0.tar.gz", "train-0.tgz", "val/0.tar.zst"])
def test_compressed_shards_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, {})
    with pytest.raises(DataError, match=rf"compressed shard .*{name}; decompress it"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("pax", "message"),
    [({"size": "9" * 25}, "damaged"), ({"GNU.sparse.map": "x"}, "damaged"),
     ({"path": "cat/0\0.jpg"}, "null")],
)  # fmt: skip
def test_headers_that_are_no_headers_are_refused(
    tmp_path: Path, pax: dict[str, str], message: str
) -> None:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("cat/a.jpg")
        member.pax_headers = pax
        tar.addfile(member)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


def test_a_split_without_images_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "train-0.tar", {"cat/a.jpg": b"x"})
    write(tmp_path / "test-0.tar", {"a.jpg": b"x"})
    files = scan(tmp_path)
    assert files.class_folders == {"train": ("cat",)}
    assert len(files.notes) == 1


def test_a_class_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.tar", {"a.jpg": b"x", "a.cls": "café".encode("latin-1")})
    with pytest.raises(DataError, match=r"a class file must be UTF-8: .*train-0.tar: 'a.cls'"):
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
