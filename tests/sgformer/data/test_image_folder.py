import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from permissions import open_to_others

from sgformer.data.image_folder import check_split, folder_of, read_image_folder, read_split
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, InputError


def make(root: Path, files: list[str]) -> DataConfig:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if "." in path.name else path.mkdir(exist_ok=True)
    return DataConfig(data_dir=root)


GOOD = [f"{s}/{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in range(3)]


def test_splits_and_classes_are_found_in_order(tmp_path: Path) -> None:
    folder = read_image_folder(make(tmp_path, [*GOOD, "train/a/x.JPG", "train/a/notes.txt"]))
    assert folder.classes == ("a", "b")
    assert list(folder.splits) == ["train", "val"]
    assert Counter(folder.split("train").labels) == {0: 4, 1: 3}


def test_val_is_split_off_train_stratified_and_by_seed(tmp_path: Path) -> None:
    config = make(tmp_path, [f"train/{c}/{i}.png" for c in "abc" for i in range(10)])
    folder = read_image_folder(config)
    assert Counter(folder.split("val").labels) == {0: 2, 1: 2, 2: 2}
    assert not set(folder.split("val").names) & set(folder.split("train").names)
    assert len(folder.split("train")) == 24
    assert read_image_folder(config) == folder
    assert folder.val_is_of_train
    assert not read_image_folder(make(tmp_path / "both", GOOD)).val_is_of_train
    other = config.model_copy(update={"val_seed": 1})
    assert read_image_folder(other).split("val") != folder.split("val")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["val/a/1.png"], "has no train folder"),
        (["train/a/1.png"], r"train has 1 classes; at least 2"),
        ([*GOOD, "train/c"], r"class without images: .*train/c"),
        ([*GOOD, "val/c,\n/1.png"], r"val has classes that train lacks: 'c,\\n'"),
        ([*GOOD, "train/c/1.png"], r"val lacks classes that train has: 'c'"),
        (
            [*GOOD, *(f"train/c{i}/1.png" for i in range(2000))],
            r"val lacks classes that train has: 'c0', 'c1', 'c10', .* and 1990 more$",
        ),
        ([*GOOD, "train/c/1.png", "val/c"], r"class without images: .*val/c"),
        (["train/a/1.png", "train/b/1.png"], r"class 'a' has one image in train; 2 are needed"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image_folder(make(tmp_path, files))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image folder not found: .*/nowhere"):
        read_image_folder(DataConfig(data_dir=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no image folder given: pass --data-dir"):
        read_image_folder(DataConfig())


def test_a_missing_split_is_named_with_those_there_are(tmp_path: Path) -> None:
    folder = read_image_folder(make(tmp_path, GOOD))
    with pytest.raises(DataError, match=r"no split 'test' in .*; there are: 'train', 'val'"):
        folder.split("test")


def test_one_split_alone_is_enough_for_a_model_that_knows_its_classes(tmp_path: Path) -> None:
    config = make(tmp_path, ["test/a/1.png", "test/b/1.png"])
    assert len(read_split(config, "test", ("a", "b"), of_train=False).split("test")) == 2
    with pytest.raises(DataError, match="test lacks classes that the model has: 'c'"):
        read_split(config, "test", ("a", "b", "c"), of_train=False)
    with pytest.raises(DataError, match="test has classes that the model lacks: 'b'"):
        read_split(config, "test", ("a",), of_train=False)


@pytest.mark.parametrize("name", ["two words", "ünï", "new\nline", "-dash", "'quote\"", "a.b"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    config = make(tmp_path, [*GOOD, f"train/a/{name}.png", f"train/b/{name}/x.png"])
    names = read_image_folder(config).split("train").names
    assert f"train/a/{name}.png" in names
    assert f"train/b/{name}/x.png" in names


def test_links_to_files_and_class_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", ["c/1.png", "c/2.png"])
    config = make(tmp_path / "images", [f"train/{c}/{i}.png" for c in "ab" for i in range(2)])
    train = tmp_path / "images" / "train"
    (train / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (train / "a" / "link.png").symlink_to(tmp_path / "elsewhere" / "c" / "1.png")
    (train / "a" / "loop").symlink_to(train)
    folder = read_image_folder(config)
    assert folder.classes == ("a", "b", "c")
    assert Counter(folder.split("train").labels) + Counter(folder.split("val").labels) == {
        0: 3, 1: 2, 2: 2,
    }  # fmt: skip


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    config = make(tmp_path, GOOD)
    os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
    assert len(read_image_folder(config).split("train")) == 6


def test_a_class_of_one_image_is_enough_where_there_is_a_val_folder(tmp_path: Path) -> None:
    folder = read_image_folder(make(tmp_path, [*GOOD[3:], "train/a/1.png"]))
    assert Counter(folder.split("train").labels) == {0: 1, 1: 3}


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    config = make(tmp_path, GOOD)
    os.mkdir(os.fsencode(tmp_path) + b"/train/\xff")  # noqa: PTH102
    with pytest.raises(DataError, match=r"name of a class folder is not UTF-8: '.*\\udcff'"):
        read_image_folder(config)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # a Mac's disk gives the second form
BOTH_FORMS = [
    *[f"train/{c}/{i}.png" for c in (COMPOSED, "cafz") for i in range(3)],
    *[f"val/{c}/{i}.png" for c in (DECOMPOSED, "cafz") for i in range(2)],
]


def test_a_class_name_is_the_same_in_both_unicode_forms(tmp_path: Path) -> None:
    config = make(tmp_path, [*BOTH_FORMS, f"test/{DECOMPOSED}/1.png", "test/cafz/1.png"])
    folder = read_image_folder(config)
    assert folder.classes == ("cafz", COMPOSED)  # spelled as in train
    val = folder.split("val")
    assert [val.names[i] for i, label in enumerate(val.labels) if label == 1] == [
        f"val/{DECOMPOSED}/0.png",
        f"val/{DECOMPOSED}/1.png",
    ]
    assert all((tmp_path / name).is_file() for name in folder.names)
    assert folder_of(config, sorted(folder.names)) == folder


def test_a_model_knows_its_classes_in_both_unicode_forms(tmp_path: Path) -> None:
    config = make(
        tmp_path, [f"{s}/{c}/1.png" for s in ("val", "train") for c in (DECOMPOSED, "cafz")]
    )
    classes = ("cafz", COMPOSED)  # sorted otherwise than those on the disk
    for split in ("val", "train"):
        read = read_split(config, split, classes, of_train=False)
        assert read.classes == classes
        of_class = dict(zip(read.split(split).names, read.split(split).labels, strict=True))
        assert of_class == {f"{split}/cafz/1.png": 0, f"{split}/{DECOMPOSED}/1.png": 1}


def test_a_val_split_off_a_train_in_another_form_has_the_models_labels(tmp_path: Path) -> None:
    files = [f"train/{c}/{i}.png" for c in (DECOMPOSED, "cafz") for i in range(5)]
    read = read_split(make(tmp_path, files), "val", ("cafz", COMPOSED), of_train=True)
    names = [name.split("/")[1] for name in read.split("val").names]
    expected = [{"cafz": 0, DECOMPOSED: 1}[name] for name in names]
    assert list(read.split("val").labels) == expected == sorted(expected)


def test_two_forms_of_one_class_name_in_a_split_are_refused(tmp_path: Path) -> None:
    config = make(tmp_path, [*BOTH_FORMS, f"val/{COMPOSED}/1.png"])
    with pytest.raises(
        DataError,
        match=r"val has two folders or labels of one class, in two Unicode forms: "
        r"'cafe\\u0301' and 'caf\\xe9'; use one of them",
    ):
        read_image_folder(config)


@pytest.mark.parametrize("mode", [0, 0o444])
def test_folders_that_may_not_be_read_are_named(tmp_path: Path, mode: int) -> None:
    config = make(tmp_path, GOOD)
    (tmp_path / "train" / "a").chmod(mode)
    # Root may read everything, so another user tries.
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sgformer.data_config import DataConfig\n"
        "from sgformer.data.image_folder import read_image_folder\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "read_image_folder(DataConfig(data_dir=Path(sys.argv[1])))\n"
    )
    open_to_others(tmp_path)
    command = [sys.executable, "-c", script, str(config.data_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "train" / "a").chmod(0o755)
    assert "DataError: cannot read the images: Permission denied" in result.stderr
    assert "train/a" in result.stderr.splitlines()[-1]


def test_classes_are_in_the_order_of_characters_whatever_their_names(tmp_path: Path) -> None:
    names = ["10", "9", "01", "no", "null", "1e3", "a,b", 'a"b', "new\nline", "Z", "\u00fc", "="]
    config = make(tmp_path, [f"train/{name}/{i}.png" for name in names for i in range(2)])
    assert read_image_folder(config).classes == tuple(sorted(names))


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    config = make(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"no split 'test' in .*; there are: train, val"):
        read_split(config, "test", ("a", "b"), of_train=False)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="--split: 'tests' is none of train, val, test"):
        check_split("tests")
