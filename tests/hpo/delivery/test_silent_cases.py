"""What would silently become something else is said, and right, for a whole set of images.

Hidden folders, formats, deep and transparent images, Unicode, splits that the model was not
trained with, equal images across splits.
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Call, refused
from onnx_models import write_classifier
from PIL import Image

from hpo.delivery.classify import evaluate_exported
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data_config import DataConfig
from sgformer.images.trained_images import TrainedImages

ANIMALS = ("cat", "dog")


def noise(seed: object) -> Image.Image:
    rng = np.random.default_rng(abs(hash(seed)) % 2**32)
    return Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))


def write_set(root: Path, *splits: str, count: int = 6) -> Path:
    """Two classes of photographs, all different."""
    for split in splits:
        for name in ANIMALS:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise(f"{split}/{name}/{i}").save(folder / f"{i}.png")
    return root


def load(root: Path, **values: object) -> ImageData:
    cache = root.with_name(f"{root.name} cache")
    settings = {"data_dir": root, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache}
    return load_image_data(DataConfig.model_validate(settings | values))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", "train", "val")


@pytest.fixture
def train_only(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", "train")


def exported_from(data: ImageData, path: Path) -> Path:
    """A model that was trained with these images."""
    known = data.trained_images
    return write_classifier(
        path, data.classes, known.as_metadata(), max_value=known.max_value,
        cache_dir=path.with_name("cache"),
    )  # fmt: skip


def test_plain_images_are_loaded_silently(images: Path) -> None:
    assert load(images).notes == ()


def test_hidden_folders_are_silently_no_class_and_no_images_but_noted(images: Path) -> None:
    before = load(images)
    for hidden in ("train/.ipynb_checkpoints", "train/cat/@eaDir/0.png", "val/cat/__MACOSX"):
        (images / hidden).mkdir(parents=True)
        shutil.copy(images / "train/dog/0.png", images / hidden / "image.png")
    (images / "train/dog/._0.png").write_bytes(b"no image")
    data = load(images)
    assert data.classes == ANIMALS
    assert data.folder == before.folder
    assert data.images.id == before.images.id
    assert data.notes == (
        "hidden files and folders passed over: 4, such as 'train/.ipynb_checkpoints'",
    )


def test_gif_jfif_and_avif_are_not_silently_passed_over_and_other_formats_are_counted(
    images: Path,
) -> None:
    folder = images / "train/cat"
    noise("gif").save(folder / "a.gif")
    noise("jfif").save(folder / "a.jfif", "JPEG")
    noise("avif").save(folder / "a.AVIF")
    (folder / "a.heic").write_bytes(b"of a telephone")
    data = load(images)
    assert len(data.samples("train")) == 15
    assert data.notes == (
        "files passed over that are of no known image format: 1 (1 .heic), such as "
        "'train/cat/a.heic'",
    )


def test_animated_images_silently_lose_no_frame(images: Path) -> None:
    noise(1).save(images / "val/cat/a.gif", save_all=True, append_images=[noise(2)])
    assert load(images).notes == (
        "1 image with several frames or pages; the first is taken: 'val/cat/a.gif'",
    )


def test_transparent_pixels_do_not_silently_show_what_they_hide(images: Path) -> None:
    clear = Image.new("RGBA", (32, 32), (200, 0, 0, 0))
    clear.save(images / "train/cat/0.png")
    clear.save(images / "train/cat/1.webp", lossless=True)
    white, blue = load(images), load(images, background=(0, 0, 255))
    for data, colour in ((white, [255] * 3), (blue, [0, 0, 255])):
        for name in ("train/cat/0.png", "train/cat/1.webp"):
            assert (data.images[data.images.names.index(name)] == colour).all()
    assert white.notes == (
        "2 images with transparency, laid on the colour 255, 255, 255 (train.data.background): "
        "'train/cat/0.png', and 1 more",
    )


def write_scans(root: Path, suffix: str = ".png") -> Path:
    """Two classes of dark scans, 20 to 50 and 200 to 230, in files of 16 bits."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 20), ("light", 200)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                values = level + rng.integers(0, 31, (32, 32)).astype(np.uint16)
                assert cv2.imwrite(str(folder / f"{i}{suffix}"), values)
    return root


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_dark_scans_of_16_bits_do_not_silently_become_black(tmp_path: Path, suffix: str) -> None:
    data = load(write_scans(tmp_path / "scans", suffix))
    means = {name: data.images[i].mean() for i, name in enumerate(data.images.names)}
    assert min(m for name, m in means.items() if "light" in name) > 180
    assert max(m for name, m in means.items() if "dark" in name) < 60
    assert data.trained_images.max_value == 255
    assert data.notes == (
        "16 images of more than 8 bits a channel; the value 255, or the largest that a PGM or "
        f"PPM declares, becomes 255 (train.data.max_value): 'train/dark/0{suffix}', and 15 more",
    )


def test_the_range_of_deep_images_can_be_set(tmp_path: Path) -> None:
    data = load(write_scans(tmp_path / "scans"), max_value=4095)
    assert data.images[0].max() == round(50 * 255 / 4095)
    assert "the value 4095" in data.notes[0]


def test_a_model_scales_deep_images_as_its_training_did_silently_in_every_command(
    tmp_path: Path,
) -> None:
    root = write_scans(tmp_path / "scans")
    model = exported_from(load(root), tmp_path / "model.onnx")
    metrics, notes = evaluate_exported(model, root, "val")
    assert metrics.num_images == 8
    assert "the value 255" in notes[0]
    # One split with brighter images than the training's keeps the training's range.
    bright = np.full((32, 32), 4000, np.uint16)
    assert cv2.imwrite(str(root / "val/light/9.png"), bright)
    _, notes = evaluate_exported(model, root, "val")
    assert "the value 255" in notes[0]
    assert "1 image with values above 255, which become 255" in notes[1]


def test_a_class_in_two_unicode_forms_is_not_silently_two(tmp_path: Path) -> None:
    root = write_set(tmp_path / "images", "train", "val")
    (root / "train/cat").rename(root / "train/caf\u00e9")
    (root / "val/cat").rename(root / "val/cafe\u0301")
    data = load(root)
    assert data.classes == ("caf\u00e9", "dog")
    assert len(data.samples("val")) == 12


def test_images_in_two_splits_are_not_silently_evaluated(images: Path) -> None:
    shutil.copy(images / "train/cat/0.png", images / "val/cat/x.png")
    shutil.copy(images / "train/cat/1.png", images / "val/dog/y.png")
    assert load(images).notes == (
        "2 images of val, equal byte for byte to images of train; metrics of val are too good: "
        "'val/cat/x.png' is 'train/cat/0.png', and 1 more",
    )


def test_equal_images_of_a_val_that_is_split_off_train_are_found_too(train_only: Path) -> None:
    for name in ANIMALS:
        for i in range(1, 6):
            shutil.copy(
                train_only / "train" / name / "0.png", train_only / "train" / name / f"{i}.png"
            )
    assert "2 images of val, equal byte for byte" in load(train_only).notes[0]


# A split's images are those that the model was trained with, or the command says so.


def test_val_and_train_silently_stay_the_parts_that_the_model_was_trained_with(
    train_only: Path, tmp_path: Path
) -> None:
    data = load(train_only)
    model = exported_from(data, tmp_path / "model.onnx")
    for split in ("train", "val"):
        metrics, notes = evaluate_exported(model, train_only, split)
        assert metrics.num_images == len(data.samples(split))
        assert notes == ()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_val_that_may_have_been_trained_on_is_refused_not_silently_drawn_anew(
    call: Call, train_only: Path, tmp_path: Path, split: str
) -> None:
    model = exported_from(load(train_only), tmp_path / "model.onnx")
    noise("new").save(train_only / "train/cat/new.png")
    err = refused(call("evaluate", model, "--data-dir", train_only, "--split", split))
    assert "val was split off train when the model was trained, and the train images of" in err
    assert "put them back, or evaluate on a val or test folder of other images" in err


def test_a_val_folder_of_other_images_is_noted_not_silently_taken_for_the_trainings(
    call: Call, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images / "val", tmp_path / "other/val")
    noise("new").resize((40, 40)).save(tmp_path / "other/val/cat/0.png")
    model = exported_from(load(images), tmp_path / "model.onnx")
    command = ("evaluate", model, "--data-dir", tmp_path / "other", "--split", "val")
    expected = "these are not the val images of the model's training (names or sizes differ)"
    code, _, err = call(*command)
    assert (code, err) == (0, f"note: {expected}\n")
    code, out, err = call(*command, "--json")
    assert json.loads(out)["notes"] == [expected]
    assert err == ""


def test_the_whole_train_folder_is_train_for_a_model_with_a_val_folder(
    images: Path, tmp_path: Path
) -> None:
    model = exported_from(load(images), tmp_path / "model.onnx")
    shutil.rmtree(images / "val")
    metrics, notes = evaluate_exported(model, images, "train")
    assert (metrics.num_images, notes) == (12, ())


def test_a_test_folder_needs_no_other_split(images: Path, tmp_path: Path) -> None:
    model = exported_from(load(images), tmp_path / "model.onnx")
    shutil.copytree(images / "val", tmp_path / "new/test")
    metrics, notes = evaluate_exported(model, tmp_path / "new", "test")
    assert (metrics.num_images, notes) == (12, ())


def test_a_model_of_an_earlier_version_says_that_it_does_not_know(
    train_only: Path, tmp_path: Path
) -> None:
    model = write_classifier(tmp_path / "model.onnx", ANIMALS, cache_dir=tmp_path / "cache")
    metrics, (note,) = evaluate_exported(model, train_only, "val")
    assert metrics.num_images == 2
    assert "the model was exported by an earlier version, which did not keep what" in note


def test_what_a_model_keeps_of_its_images_names_none(train_only: Path) -> None:
    metadata = load(train_only).trained_images.as_metadata()
    assert TrainedImages.from_metadata(json.loads(json.dumps(metadata))) is not None
    assert "cat" not in json.dumps(metadata)
    assert str(train_only) not in json.dumps(metadata)
