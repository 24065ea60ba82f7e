import csv
import io
import json
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from data_sets import write_shards
from extensions import OLD, Extendable

from hpo.transfer.extended_images import Extended, write_extended_images
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, InputError


@pytest.fixture
def new(extendable: Extendable, tmp_path: Path) -> Path:
    """A copy of the new images, which a test may change."""
    return Path(shutil.copytree(extendable.new, tmp_path / "new"))


@pytest.fixture
def base(extendable: Extendable, tmp_path: Path) -> Path:
    """A copy of the base, which a test may change."""
    return Path(shutil.copytree(extendable.base, tmp_path / "base"))


def write(folder: Path, base: Path, new: Path) -> Extended:
    images = read_image_folder(DataConfig(data_dir=new), least=1)
    return write_extended_images(folder, base, OLD, images)


def rows_of(images: Extended) -> list[dict[str, str]]:
    with images.manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_extension_has_the_new_images_and_what_its_base_has_kept(
    extendable: Extendable, train_config: TrainConfig
) -> None:
    images = extendable.images
    assert (images.old, images.new, images.notes) == (OLD, ("8", "9"), ())
    assert images.num_train == 8 * 3 + 14
    counts = Counter((row["split"], row["label"]) for row in rows_of(images))
    assert counts["train", "1"] == 3 + 3  # by herding, and at random
    assert counts["train", "0"] == 3 + 3 + 2
    assert (counts["train", "9"], counts["val", "9"], counts["test", "9"]) == (6, 3, 2)
    assert (counts["val", "1"], counts["test", "1"], counts["val", "0"]) == (3, 2, 4)
    data = load_image_data(train_config.data.model_copy(update={"data_dir": images.manifest}))
    assert data.classes == (*OLD, "8", "9")
    assert data.unreadable == ()


def test_one_new_class_is_an_extension(base: Path, new: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("0", "8"):
            shutil.rmtree(new / split / name)
    assert write(tmp_path / "images", base, new).new == ("9",)


def test_new_images_of_an_extension_may_lie_in_shards(
    base: Path, new: Path, tmp_path: Path, train_config: TrainConfig
) -> None:
    shards = write_shards(new, tmp_path / "shards")
    images = write(tmp_path / "images", base, shards)
    shutil.rmtree(shards)
    data = load_image_data(train_config.data.model_copy(update={"data_dir": images.manifest}))
    assert data.classes == (*OLD, "8", "9")
    assert data.unreadable == ()


@pytest.mark.parametrize(("lacks", "whose"), [("base", "the new images"), ("new", "the model's")])
def test_without_a_test_split_on_both_sides_an_extension_has_none_and_says_so(
    lacks: str, whose: str, base: Path, new: Path, tmp_path: Path
) -> None:
    if lacks == "base":
        (base / "exemplars" / "test.tar").unlink()
    else:
        shutil.rmtree(new / "test")
    images = write(tmp_path / "images", base, new)
    (note,) = images.notes
    assert note.startswith(f"there are no test metrics: only {whose}")
    assert {row["split"] for row in rows_of(images)} == {"train", "val"}


def test_the_images_of_an_extension_are_made_once_and_of_the_same_things(
    base: Path, new: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    first = write(folder, base, new)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write(folder, base, new) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    shutil.copyfile(new / "train" / "8" / "0.png", new / "train" / "8" / "again.png")
    with pytest.raises(InputError, match=r"was made of other images: their folder has changed"):
        write(folder, base, new)
    other = Path(shutil.copytree(new, tmp_path / "other"))
    with pytest.raises(InputError, match=re.escape(f"was made of other images ({new})")):
        write(folder, base, other)
    (base / "checkpoint.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match=r"was made of another model; go on with those, or"):
        write(folder, base, new)


def test_an_extension_does_not_write_into_a_folder_of_something_else(
    base: Path, new: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images is in the way: the images of the extension are"):
        write(tmp_path / "images", base, new)


@pytest.mark.parametrize(
    ("old", "name", "problem"),
    [
        ("0", "1", "has no new class: the model knows '1'; `search` with train.model.checkpoint"),
        ("traffic light", "Traffic_Light", "class 'Traffic_Light' differs from the model's class "
         "'traffic light' only in case or spaces. An extension keeps all classes"),
    ],
)  # fmt: skip
def test_renamed_classes_are_no_extension(
    old: str, name: str, problem: str, base: Path, new: Path, tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        for other in ("0", "8"):
            shutil.rmtree(new / split / other)
        (new / split / "9").rename(new / split / name)
    images = read_image_folder(DataConfig(data_dir=new), least=1)
    with pytest.raises(DataError, match=re.escape(problem)):
        write_extended_images(tmp_path / "images", base, (*OLD[1:], old), images)


def test_a_model_without_exemplars_is_not_extended(base: Path, new: Path, tmp_path: Path) -> None:
    shutil.rmtree(base / "exemplars")
    with pytest.raises(DataError, match=r"has no exemplars .* extension\.keep_exemplars 0, or by"):
        write(tmp_path / "images", base, new)
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "00000/00000.png/../x", "00009/00000.png", "00000/x"]
)
def test_exemplars_of_an_extension_are_unpacked_to_no_other_place(
    name: str, base: Path, new: Path, tmp_path: Path
) -> None:
    with tarfile.open(base / "exemplars" / "herding.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match=r"herding\.tar is no file of exemplars: it has '.*'$"):
        write(tmp_path / "images", base, new)
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "images").exists()


def test_a_damaged_file_of_exemplars_cannot_be_extended_with(
    base: Path, new: Path, tmp_path: Path
) -> None:
    (base / "exemplars" / "val.tar").write_bytes(b"no tar")
    with pytest.raises(DataError, match=r"cannot read the model's exemplars .*val\.tar: "):
        write(tmp_path / "images", base, new)


def test_what_the_images_of_an_extension_were_made_of_is_kept(extendable: Extendable) -> None:
    facts = json.loads((extendable.images.manifest.parent / "source.json").read_text())
    assert facts["classes"] == [*OLD, "8", "9"]
