"""Tests of `init`: what it writes, prints and refuses."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from commands import Call, refused

from hpo.config.loading import load_search_config


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is out of reach, and the current folder is an empty one."""

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_a_measured_search_file_is_written_that_a_search_takes(
    call: Call, image_folder: Path, tmp_path: Path
) -> None:
    code, out, err = call("init", image_folder)
    assert code == 0, err
    assert "measuring a training of resnet18 at 32 pixels, batches of 8" in err
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    assert rows["train"].strip() == "60 images in 10 classes"
    assert "median 8 pixels, 8 to 8, of 60 images" in rows["shorter side"]
    assert "small models are trained from scratch" in rows["chosen"]
    assert "a full training takes " in rows["cost"]
    text = Path("search.yaml").read_text()
    assert "# Written by `init`: 60 images to train, 6 a class" in text
    assert "a full training takes " in text
    assert load_search_config("search.yaml")[0].train.data.data_dir == image_folder
    code, out, err = call("search", "search.yaml", "--dry-run", "--output-dir", tmp_path / "runs")
    assert code == 0, err
    assert "60 train, 30 val, 20 test in 10 classes" in out


def test_json_tells_what_was_found_and_chosen(call: Call, image_folder: Path) -> None:
    code, out, err = call("init", image_folder, "--no-measure", "--json", "--output", "a.yaml")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["file"], found["recipe"], found["epoch_seconds"]) == ("a.yaml", "small", None)
    assert found["images"]["splits"]["train"] == {"images": 60, "classes": 10}
    chosen = {one["setting"]: one for one in found["choices"]}
    assert chosen["train.data.image_size"]["value"] == 32
    assert all(one["why"] for one in chosen.values())
    assert yaml.safe_load(Path("a.yaml").read_text())["train"]["data"]["image_size"] == 32


def test_a_file_is_replaced_only_if_that_is_asked_for(call: Call, image_folder: Path) -> None:
    Path("search.yaml").write_text("mine")
    told = "--output: search.yaml is there already; --force replaces it"
    assert told in refused(call("init", image_folder, "--no-measure"))
    assert Path("search.yaml").read_text() == "mine"
    assert call("init", image_folder, "--no-measure", "--force")[0] == 0
    assert Path("search.yaml").read_text() != "mine"


def test_a_place_where_no_file_can_be_written_is_refused(call: Call, image_folder: Path) -> None:
    into = refused(call("init", image_folder, "--output", "no/search.yaml"))
    assert "there is no folder no to write search.yaml to" in into
    assert "is a folder, not a file" in refused(call("init", image_folder, "--output", "."))


def test_images_of_no_use_are_refused_and_nothing_is_written(
    call: Call, own_image_folder: Path, tmp_path: Path
) -> None:
    train = own_image_folder / "train"
    assert "image folder not found" in refused(call("init", tmp_path / "no"))
    (tmp_path / "empty").mkdir()
    assert "has no train folder" in refused(call("init", tmp_path / "empty"))
    for path in train.glob("*/*"):
        path.write_bytes(b"no image")
    assert "none of 60 train images" in refused(call("init", own_image_folder))
    for folder in train.iterdir():
        if folder.name != "3":
            shutil.rmtree(folder)
    assert "has 1 classes; at least 2 are needed" in refused(call("init", own_image_folder))
    assert list(Path().iterdir()) == []


def test_how_to_get_weights_is_told_where_there_are_none(
    call: Call, own_image_folder: Path
) -> None:
    from PIL import Image

    for path in (own_image_folder / "train").glob("*/*"):
        Image.open(path).resize((240, 240)).save(path)
    code, out, err = call("init", own_image_folder, "--no-measure")
    assert code == 0, err
    assert "note: pretrained weights of convnext_atto.d2_in1k are not in the hub's cache" in err
    assert "download them where there is a network" in err
    assert "weights of convnext_atto.d2_in1k  out of reach" in out


def test_images_that_a_search_would_refuse_are_noted(call: Call, own_image_folder: Path) -> None:
    (own_image_folder / "train/3/0.png").write_bytes(b"no image")
    files = sorted((own_image_folder / "train/3").iterdir())
    files[0].write_bytes(b"no image")
    code, _, err = call("init", own_image_folder, "--no-measure")
    assert code == 0
    assert " of 60 images that were looked at tell no size; a search refuses 1 %" in err
    assert f"`data check {own_image_folder}`" in err
