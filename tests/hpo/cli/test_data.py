"""Tests of `data check`: rows, JSON, exit codes, narrow terminals, odd names."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from commands import Call, refused
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)


@pytest.fixture
def odd_folder(own_image_folder: Path) -> Path:
    """The digits with equal images, a transparent one, a damaged one and a hidden folder."""
    folder = own_image_folder
    shutil.copy(folder / "train/3/0.png", folder / "test/3/copy.png")
    shutil.copy(folder / "train/5/0.png", folder / "train/7/x\n.png")
    Image.fromarray(NOISE).save(folder / "train/1/clear.png")
    (folder / "train/1/bad.png").write_bytes(b"no image")
    (folder / "train/.ipynb_checkpoints").mkdir()
    return folder


def rows_of(text: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in text.replace("\n  ", "\n").splitlines())
    return {name: value.strip() for name, value in pairs}


def test_what_was_found_is_printed_a_row_each(call: Call, odd_folder: Path) -> None:
    code, out, err = call("data", "check", odd_folder)
    assert (code, err) == (0, "")
    assert rows_of(out) == {
        "folder": str(odd_folder),
        "train": "63 images in 10 classes",
        "val": "30 images in 10 classes",
        "test": "21 images in 10 classes",
        "classes of train": "largest 8 ('1'), median 6, smallest 6 ('0'): 1.33 to 1",
        "shorter side": "smallest 8, median 8, largest 20",
        "longer side": "smallest 8, median 8, largest 30",
        "formats": "PNG 113",
        "over 8 bits": "0",
        "transparent": "1 (0.9 %), such as 'train/1/clear.png'",
        "grey": "112 (99.1 %), such as 'test/0/10.png'",
        "several frames": "0",
        "unreadable": "1 (0.9 %): 'train/1/bad.png'",
        "equal images": "byte for byte:",
        "within train": "1 image, such as 'train/7/x\\n.png', which is 'train/5/0.png'",
        "test and train": "1 image, such as 'test/3/copy.png', which is 'train/3/0.png'; metrics "
        "of test are too good",
        "other class": "2 images, such as 'train/5/0.png', which is 'train/7/x\\n.png'; which "
        "class is right is not known",
        "passed over": "hidden files and folders passed over: 1, such as "
        "'train/.ipynb_checkpoints'",
    }


def test_json_holds_all_of_it(call: Call, odd_folder: Path) -> None:
    code, out, err = call("data", "check", odd_folder, "--json")
    found = json.loads(out)
    assert (code, err, found["refused"]) == (0, "", None)
    assert found["splits"]["train"] == {"images": 63, "classes": 10}
    assert found["class_sizes"]["ratio"] == pytest.approx(8 / 6)
    assert found["longer_side"] == {"smallest": 8, "median": 8.0, "largest": 30}
    transparent = {"images": 1, "share": 1 / 113, "first": "train/1/clear.png"}
    assert found["traits"]["transparent"] == transparent
    assert found["unreadable"] == {"images": 1, "first": ["train/1/bad.png"]}
    assert found["equal"]["across"] == [
        {
            "images": 1, "first": ["test/3/copy.png", "train/3/0.png"], "split": "test",
            "earlier": "train",
        },
    ]  # fmt: skip
    assert found["equal"]["in_several_classes"]["first"] == ["train/5/0.png", "train/7/x\n.png"]
    assert len(found["passed_over"]) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_folder_that_a_search_refuses_ends_with_2_after_what_was_found(
    call: Call, odd_folder: Path, as_json: bool
) -> None:
    for path in (odd_folder / "val/4").iterdir():
        path.unlink()
    code, out, err = call("data", "check", odd_folder, *["--json"] * as_json)
    assert code == 2
    reason = f"class without images: '{odd_folder / 'val/4'}'"
    assert err.startswith(f"error: {reason}")
    if as_json:
        assert json.loads(out)["refused"].startswith(reason)
        assert json.loads(out)["splits"]["val"] == {"images": 27, "classes": 10}
    else:
        assert rows_of(out)["val"] == "27 images in 10 classes"
        assert rows_of(out)["unreadable"] == "1 (0.9 %): 'train/1/bad.png'"


def test_a_class_without_images_makes_no_number_of_the_ratio(call: Call, odd_folder: Path) -> None:
    (odd_folder / "train/empty").mkdir()
    _, out, _ = call("data", "check", odd_folder)
    assert rows_of(out)["classes of train"].endswith("smallest 0 ('empty'): one has no images")
    _, out, _ = call("data", "check", odd_folder, "--json")
    assert json.loads(out)["class_sizes"]["ratio"] is None


def test_ten_unreadable_images_are_named_and_the_others_counted(
    call: Call, own_image_folder: Path
) -> None:
    for i in range(25):
        (own_image_folder / f"train/1/bad{i:02}.png").touch()
    code, out, err = call("data", "check", own_image_folder)
    assert code == 2
    assert "25 of 135 images" in err
    assert rows_of(out)["unreadable"].endswith("'train/1/bad09.png' and 15 more")


def test_the_scale_of_deep_images_is_told(call: Call, own_image_folder: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), 3000, np.uint16))
    deep.save(own_image_folder / "train/1/deep.png")
    _, out, _ = call("data", "check", own_image_folder)
    told = "1 (0.9 %), such as 'train/1/deep.png'; the value 4095 becomes 255"
    assert rows_of(out)["over 8 bits"] == told


def test_a_missing_folder_and_a_file_are_refused(call: Call, tmp_path: Path) -> None:
    assert f"image folder not found: {tmp_path}/no" in refused(
        call("data", "check", tmp_path / "no")
    )
    (tmp_path / "file").touch()
    assert "neither a folder nor a .csv" in refused(call("data", "check", tmp_path / "file"))


def test_a_name_that_is_no_text_is_escaped(odd_folder: Path) -> None:
    import os

    os.mkdir(os.fsencode(odd_folder) + b"/train/\xff")  # noqa: PTH102
    for options in ((), ("--json",)):
        done = run(
            "data", "check", odd_folder, *options, expect=2, PYTHONIOENCODING="ascii:strict"
        )
        assert "is not UTF-8" in done.stderr
        assert "\\udcff" in done.stdout


@pytest.mark.parametrize("width", [40, 60])
def test_rows_fit_a_narrow_terminal(
    call: Call, odd_folder: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    settings = {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    _, out, _ = call("data", "check", odd_folder)
    assert max(map(len, out.splitlines())) <= width
    assert "  test and train  1 image, such as" in out


def test_help_fits_a_narrow_terminal() -> None:
    for command in (("data", "--help"), ("data", "check", "--help")):
        text = run(*command, COLUMNS="60").stdout
        assert max(map(len, text.splitlines())) <= 60
        assert "check" in text


def test_a_check_needs_neither_torch_nor_ray(own_image_folder: Path) -> None:
    program = (
        "import sys; sys.argv = ['x', 'data', 'check', sys.argv[1]]\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        "finally: print('loaded:', [m for m in ('torch', 'ray', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(own_image_folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
