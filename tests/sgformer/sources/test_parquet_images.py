import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgformer.errors import DataError
from sgformer.sources.image_files import SPLITS, ImageFiles, not_told
from sgformer.sources.parquet_images import find_parquet, scan_parquet
from sgformer.sources.source import source_of


def scan(root: Path) -> ImageFiles:
    return scan_parquet(root, SPLITS, not_told)


def write(path: Path, about: dict[str, object] | None = None, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if about:
        metadata = {"huggingface": json.dumps({"info": {"features": about}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)
    return path


def images(*contents: bytes | None) -> list[dict[str, object]]:
    return [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]


@pytest.mark.parametrize(
    "name",
    ["train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "train/0000.parquet",
     "train.parquet", "flowers-train.parquet"],
)  # fmt: skip
def test_files_are_named_after_their_split_or_lie_in_its_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, image=images(b"a", b"b"), label=["x", "y"])
    assert find_parquet(tmp_path) == {"train": (name,)}
    files = scan(tmp_path)
    source = source_of(tmp_path, files.names, files.places)
    assert [source.read(one) for one in files.names] == [b"a", b"b"]
    assert files.class_folders == {"train": ("x", "y")}


def test_names_of_class_numbers_come_from_the_file(tmp_path: Path) -> None:
    about = {"label": {"_type": "ClassLabel", "names": ["dog", "cat", "an owl"]}}
    path = write(
        tmp_path / "test-0.parquet", about, image=images(b"a", b"b", b"c"), label=[2, 0, -1]
    )
    files = scan(path.parent)
    assert files.class_folders == {"test": ("an owl", "dog")}
    assert files.notes == (
        "images passed over that have no class: 1, such as 'test-0.parquet/00000002-2.png'",
    )


def test_one_file_may_tell_the_splits(tmp_path: Path) -> None:
    path = write(
        tmp_path / "all.parquet",
        image=images(b"a", b"b"), label=["x", "y"], split=["test", "validation"],
    )  # fmt: skip
    files = scan(path)
    assert {name.split("/")[0] for name in files.names} == {"val", "test"}
    source = source_of(path, files.names, files.places)
    assert {source.read(name) for name in files.names} == {b"a", b"b"}


@pytest.mark.parametrize("column", ["img", "image", "my.image"])
def test_the_only_column_of_images_is_taken(tmp_path: Path, column: str) -> None:
    for values in (images(b"a"), [b"a"]):
        columns = {column: values, "label": ["x"], "other": [1]}
        write(tmp_path / "train.parquet", **columns)
        files = scan(tmp_path)
        assert source_of(tmp_path, files.names, files.places).read(files.names[0]) == b"a"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ["x"], "text": ["a"]}, "no column 'image' .*; its columns: label, text"),
        ({"a": [b"x"], "b": [b"x"], "label": ["x"]}, "no column 'image'"),
        ({"image": [b"x"], "fine": ["x"]}, "no column 'label' .*; its columns: image, fine"),
        ({"image": [b"x"], "label": ["n/a"]}, "cannot be named 'n/a': row 0 of"),
        ({"image": [b"x"], "label": [[1, 2]]}, r"row 0 of .* has label \[1, 2\]; a label is"),
    ],
)
def test_files_without_images_or_labels_are_refused(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    write(tmp_path / "train.parquet", **columns)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


def test_a_number_without_a_name_is_refused(tmp_path: Path) -> None:
    about = {"label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    write(tmp_path / "train.parquet", about, image=images(b"a"), label=[2])
    with pytest.raises(DataError, match=r"row 0 of .* has label 2; the file has names for 0 to 1"):
        scan(tmp_path)


def test_labels_may_be_of_any_type_of_text_or_number(tmp_path: Path) -> None:
    for i, label in enumerate(
        [pa.array(["x"]).dictionary_encode(), pa.array(["x"], pa.large_string()),
         pa.array([b"x"]), pa.array([7], pa.int8())]
    ):  # fmt: skip
        write(tmp_path / str(i) / "train.parquet", image=images(b"a"), label=label)
        assert scan(tmp_path / str(i)).class_folders == {"train": ("x" if i < 3 else "7",)}


def test_a_split_without_a_class_is_left_out(tmp_path: Path) -> None:
    about = {"label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    write(tmp_path / "train.parquet", about, image=images(b"a", b"b"), label=[0, 1])
    write(tmp_path / "test.parquet", about, image=images(b"a"), label=[-1])
    files = scan(tmp_path)
    assert list(files.class_folders) == ["train"]
    assert "images passed over that have no class: 1" in files.notes[0]


def test_any_damage_is_refused_or_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", image=images(b"a", b"b"), label=["x", "y"])
    whole, noise, told = path.read_bytes(), np.random.default_rng(0), list[str]()
    for _ in range(300):
        content = bytearray(whole)
        for at in noise.integers(0, len(content), 3):
            content[at] = noise.integers(256)
        path.write_bytes(content)
        try:
            files = scan(tmp_path)
        except DataError as error:
            told.append(str(error))
            continue
        source = source_of(tmp_path, files.names, files.places)
        assert all(isinstance(source.read(name), bytes) for name in files.names)
    assert len(told) > 30
    assert all(re.search(r"train\.parquet", text) for text in told)


def test_what_is_damaged_is_refused_or_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", image=images(b"a", None), label=["x", "x"])
    files = scan(tmp_path)
    assert source_of(tmp_path, files.names, files.places).read(files.names[1]) == b""
    path.write_bytes(path.read_bytes()[:-10])
    assert source_of(tmp_path, files.names, files.places).read(files.names[0]) == b""
    with pytest.raises(DataError, match=r"cannot read .*train.parquet"):
        scan(tmp_path)
    path.unlink()
    assert source_of(tmp_path, files.names, files.places).read(files.names[0]) == b""
