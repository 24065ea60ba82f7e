from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgformer.errors import DataError
from sgformer.sources.image_files import SPLITS, ImageFiles, not_told
from sgformer.sources.manifest import scan_manifest
from sgformer.sources.source import source_of


def scan(file: Path) -> ImageFiles:
    return scan_manifest(file, SPLITS, not_told)


def csv_of(folder: Path, *lines: str, header: str = "path,label,split") -> Path:
    file = folder / "images.csv"
    file.write_bytes("\n".join([header, *lines]).encode())
    return file


def test_paths_begin_at_the_manifest_unless_they_are_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.png").write_bytes(b"three")
    file = csv_of(tmp_path, "a.png,cat,train", f"{tmp_path}/sub/b.png,dog,val", "gone.png,dog,val")
    files = scan(file)
    source = source_of(file, files.names)
    assert [source.read(name) for name in files.names] == [b"one", b"three", b""]
    assert files.sizes.tolist() == [3, 5, -1]  # -1: counts as an unreadable image
    assert files.class_folders == {"train": ("cat",), "val": ("dog",)}
    assert source.where(files.names[2]) == f"{tmp_path}/gone.png"


@pytest.mark.parametrize(
    ("written", "label"),
    [("01", "01"), ("no", "no"), ("NA", "NA"), ("null", "null"), ("1.0", "1.0"), ("true", "true"),
     ('"a, b"', "a, b"), ('"a ""b"""', 'a "b"'), ('"a\nb"', "a\nb"),
     ("größe", "größe"), ("-", "-")],
)  # fmt: skip
def test_labels_of_a_csv_file_stay_as_they_are_written(
    tmp_path: Path, written: str, label: str
) -> None:
    assert scan(csv_of(tmp_path, f"a.png,{written},train")).class_folders == {"train": (label,)}


@pytest.mark.parametrize("header", ["path,label,split", "\ufeffpath,label,split"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, header: str) -> None:
    assert len(scan(csv_of(tmp_path, "a.png,cat,train", header=header))) == 1


def test_without_a_column_split_all_images_are_train_images(tmp_path: Path) -> None:
    files = scan(csv_of(tmp_path, "cat,a.png,1", "dog,b.png,2", header="label,path,score"))
    assert files.names == ("train/cat/a.png", "train/dog/b.png")


@pytest.mark.parametrize("word", ["val", "Val", "valid", "validation", " val "])
def test_words_for_val(tmp_path: Path, word: str) -> None:
    assert scan(csv_of(tmp_path, f"a.png,cat,{word}")).class_folders == {"val": ("cat",)}


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (["a.png,cat,dev"], "path,label,split", "row 1 of .*images.csv has split 'dev'; allowed"),
        (["a.png,cat,"], "path,label,split", "row 1 of .* has split ''"),
        ([",cat,val"], "path,label,split", "row 1 of .* has no path"),
        (["a.png,n/a,val"], "path,label,split", "cannot be named 'n/a': row 1 of"),
        (["a\0.png,cat,val"], "path,label,split", "null character: 'a.x00.png'"),
        (["a.png,cat,val,x"], "path,label,split,label", "has two columns 'label'"),
        (["a.png,cat"], "file,label", "no column 'path'.*; its columns: file, label"),
        (["a.png,cat"], "path,class", "no column 'label'.*; its columns: path, class"),
        (["a.png,cat,val,more"], "path,label,split", "cannot read .*images.csv: .*4"),
        ([], "", "cannot read .*images.csv: "),
    ],
)
def test_bad_manifests_are_refused(
    tmp_path: Path, lines: list[str], header: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scan(csv_of(tmp_path, *lines, header=header))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = csv_of(tmp_path)
    for content in (b"path,label,split\na.png,gr\xf6\xdfe,train\n", b"path,label,gr\xf6\xdfe\n"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*images.csv"):
            scan(file)


def test_a_row_of_megabytes_is_read(tmp_path: Path) -> None:
    long = "x" * 5_000_000
    file = csv_of(tmp_path, f"a.png,cat,train,{long}", header="path,label,split,more")
    assert len(scan(file)) == 1


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "images.parquet"
    file.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"cannot read .*images.parquet"):
        scan(file)


def test_images_without_a_label_and_rows_that_repeat_are_passed_over(tmp_path: Path) -> None:
    file = csv_of(
        tmp_path, "a.png,cat,train", "b.png,,train", "a.png,cat,train", "a.png,dog,train"
    )
    files = scan(file)
    assert files.names == ("train/cat/a.png", "train/dog/a.png")
    assert files.notes == (
        "images passed over that have no class: 1, such as 'b.png'",
        "images passed over that are listed twice: 1, such as 'train/cat/a.png'",
    )


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 10, 3], ("10", "3")),
        ([3.0, 10.0, None], ("10", "3")),
        (["01", "no", "no"], ("01", "no")),
    ],
)
def test_labels_of_a_parquet_file(
    tmp_path: Path, labels: list[object], classes: tuple[str, ...]
) -> None:
    file = tmp_path / "images.parquet"
    pq.write_table(pa.table({"path": ["a.png", "b.png", "c.png"], "label": labels}), file)
    assert scan(file).class_folders == {"train": classes}
