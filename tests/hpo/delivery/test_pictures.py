"""Pictures of made predictions for real images; test_evaluation.py has those of a model."""

import base64
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import write_csv, write_parquet, write_shards
from PIL import Image

from hpo.delivery import pictures as module
from hpo.delivery.pictures import Pictures, shown_name, thumbnail
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.data_config import DataConfig
from sgformer.training.counts import Counts
from sgformer.training.evaluation import split_metrics


def data_of(place: Path, cache_dir: Path, **settings: Any) -> ImageData:
    values = {"data_dir": place, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return load_image_data(DataConfig.model_validate(values | settings))


def pictures_of(
    data: ImageData, wrong: dict[int, tuple[int, float]], split: str = "test"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The pictures, and notes, where a model predicts every image of a split rightly but some.

    `wrong` has, by the sample, the predicted class and how far its logit is above the others.
    """
    labels = torch.from_numpy(data.samples(split)[:, 1])
    logits = 2 * torch.nn.functional.one_hot(labels, 10).float()
    for i, (predicted, logit) in wrong.items():
        logits[i] = 0
        logits[i, predicted] = logit
    counts = Counts(10, keeps_pairs=True)
    for rows in (slice(7), slice(7, None)):
        counts.add(logits[rows], labels[rows])
    made = Pictures(data, split, counts, lambda image, label: image)
    values = made.values(split_metrics(counts, data.classes).most_confused)
    return values, made.notes()


def image_of(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded, validate=True)))


def test_the_most_confident_mistakes_come_first_and_pairs_by_their_number(
    image_folder: Path, cache_dir: Path
) -> None:
    data = data_of(image_folder, cache_dir)  # two images of each digit, by digit
    found, notes = pictures_of(data, {6: (8, 1.0), 7: (8, 3.0), 2: (7, 5.0)})
    assert notes == ()
    assert found["split"] == "test"
    told = [(one["file"], one["true"], one["predicted"]) for one in found["mistakes"]]
    names = [data.images.names[i].removeprefix("test/") for i in data.samples("test")[:, 0]]
    assert told == [(names[2], "1", "7"), (names[7], "3", "8"), (names[6], "3", "8")]
    # Of ten logits, of which one is l and the others are 0.
    expected = [np.exp(x) / (np.exp(x) + 9) for x in (5, 3, 1)]
    assert [one["confidence"] for one in found["mistakes"]] == pytest.approx(expected)
    first, second = found["confused"]
    assert (first["true"], first["predicted"], first["num_images"]) == ("3", "8", 2)
    assert first["images"] == found["mistakes"][1:]
    assert (second["true"], second["predicted"], second["num_images"]) == ("1", "7", 1)
    position = int(data.samples("test")[2, 0])
    image = image_of(found["mistakes"][0]["thumbnail"])
    assert (image.format, image.size) == ("JPEG", (32, 32))
    assert np.abs(np.asarray(image, dtype=int) - data.images[position]).mean() < 4
    assert all(image_of(one["saliency"]).size == (32, 32) for one in found["mistakes"])


def test_however_many_mistakes_there_are_sixty_images_are_the_most(
    image_folder: Path, cache_dir: Path
) -> None:
    data = data_of(image_folder, cache_dir)
    labels = data.samples("train")[:, 1].tolist()
    wrong = {i: ((label + 1) % 10, 3 + i / 100) for i, label in enumerate(labels)}
    found, notes = pictures_of(data, wrong, "train")
    assert notes == ()
    assert [one["num_images"] for one in found["confused"]] == [6] * 9
    assert [len(one["images"]) for one in found["confused"]] == [4] * 9
    every = [*found["mistakes"], *(image for one in found["confused"] for image in one["images"])]
    maps = {one["file"] for one in every if one["saliency"] is not None}
    assert len(maps) == 6
    assert len(every) + len(maps) <= 60
    confidences = [one["confidence"] for one in found["mistakes"]]
    assert confidences == sorted(confidences, reverse=True)


def test_no_map_is_begun_after_the_time_for_them(
    image_folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_OF_MAPS", -1.0)
    found, (note,) = pictures_of(data_of(image_folder, cache_dir), {3: (8, 1.0), 4: (8, 2.0)})
    assert [one["saliency"] for one in found["mistakes"]] == [None, None]
    assert "saliency maps of 0 images and not of 2" in note


def test_without_mistakes_there_are_no_pictures(image_folder: Path, cache_dir: Path) -> None:
    found, notes = pictures_of(data_of(image_folder, cache_dir), {})
    assert found == {"split": "test", "mistakes": [], "confused": []}
    assert notes == ()


def test_an_image_that_is_gone_since_the_evaluation_is_left_out_and_named(
    own_image_folder: Path, tmp_path: Path
) -> None:
    # Without room in the cache, images are decoded again each time they are needed.
    data = data_of(own_image_folder, tmp_path / "cache", cache_bytes=0)
    gone = Path(data.images.where(int(data.samples("test")[7, 0])))
    gone.write_bytes(b"no image any more")
    found, (note,) = pictures_of(data, {6: (8, 1.0), 7: (8, 3.0)})
    (left,) = found["mistakes"]
    assert left["file"] != f"3/{gone.name}"
    assert found["confused"][0]["num_images"] == 2
    assert found["confused"][0]["images"] == [left]
    assert note == f"pictures.json lacks images that cannot be read any more: {str(gone)!r}"


def test_a_name_that_looks_like_html_stays_as_it_is(
    own_image_folder: Path, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>&amp;'\"é.png"
    (own_image_folder / "test" / "0" / name).write_bytes(
        next((own_image_folder / "test" / "0").iterdir()).read_bytes()
    )
    data = data_of(own_image_folder, tmp_path / "cache")
    wrong = next(
        i for i, (at, _) in enumerate(data.samples("test")) if name in data.images.names[at]
    )
    found, _ = pictures_of(data, {wrong: (5, 2.0)})
    assert json.loads(json.dumps(found))["mistakes"][0]["file"] == f"0/{name}"


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda folder, root: folder, "0/{}"),
        (write_csv, "0/{}"),  # its paths of val are absolute
        (lambda folder, root: write_shards(folder, root / "shards"), "0/val-000.tar/00000.png"),
        (lambda folder, root: write_parquet(folder, root / "parquet"),
         "0/data/validation-00000-of-00002.parquet/"),
    ],
)  # fmt: skip
def test_no_kind_of_data_set_tells_a_path_of_the_machine(
    write: Any, expected: str, own_image_folder: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_image_folder / "test")
    data = data_of(write(own_image_folder, tmp_path), tmp_path / "cache")
    found, _ = pictures_of(data, {0: (5, 2.0)}, "val")
    assert found["split"] == "val"
    first = min(path.name for path in (own_image_folder / "val" / "0").iterdir())
    assert found["mistakes"][0]["file"].startswith(expected.format(first))
    assert str(tmp_path) not in json.dumps(found)
    assert tmp_path.name not in json.dumps(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val/cat/a.png", "cat/a.png"),
        ("val/cat/long-haired/a.png", "cat/long-haired/a.png"),
        ("val/cat//home/alice/a.png", "cat/a.png"),
        ("val/cat/../../alice/a.png", "cat/a.png"),
        ("val/cat/C:\\Users\\alice\\a.png", "cat/a.png"),
        ("val/cat/C:/Users/alice/a.png", "cat/a.png"),
        ("val/cat/\\\\host\\alice\\a.png", "cat/a.png"),
        ("val/cat/train-0.tar//home/alice/a.png", "cat/a.png"),
        ("val/cat/\udcff.png", "cat/\ufffd.png"),  # not UTF-8 on the disk
    ],
)
def test_a_name_is_shown_without_what_leads_out_of_the_data_set(name: str, expected: str) -> None:
    assert shown_name(name) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 200), (96, 48)), ((50, 800), (6, 96)), ((40, 30), (40, 30))]
)
def test_a_thumbnail_has_at_most_96_pixels_a_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.full((size[1], size[0], 3), (250, 20, 30), dtype=np.uint8)
    small = image_of(thumbnail(image))
    assert small.size == expected
    assert np.abs(np.asarray(small, dtype=int) - (250, 20, 30)).max() < 8  # red stays red
