"""Tests of benchmarks/fine_tune.py on made images; importing torch takes a run seconds."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.usefixtures("modules")
def test_no_pixel_of_a_photograph_is_in_two_patches(tmp_path: Path) -> None:
    from fine_tune_images import write_photographs

    source = tmp_path / "photographs"
    source.mkdir()
    # Each pixel of this photograph has a colour of its own; PNG keeps it.
    numbers = np.arange(1024 * 1280).reshape(1024, 1280)
    channels = [(numbers >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
    cv2.imwrite(str(source / "one.png"), np.stack(channels, axis=2))
    (source / "one.png").rename(source / "one.jpg")  # cv2 reads what it is, not its name
    write_photographs(source, tmp_path / "images")
    patches = [cv2.imread(str(p)).astype(int) for p in (tmp_path / "images").rglob("*.png")]
    assert [len(list((tmp_path / "images" / s / "one").iterdir())) for s in ("train", "val")] == [
        10, 8,
    ]  # fmt: skip
    pixels = np.concatenate([(p << [0, 8, 16]).sum(2).ravel() for p in patches])
    assert len(np.unique(pixels)) == len(pixels) == (10 + 8 + 24) * 128 * 128


@pytest.mark.usefixtures("modules")
def test_a_gain_has_students_interval() -> None:
    from fine_tune import interval

    assert interval([0.1]) == "+0.100"
    assert interval([0.1, 0.2, 0.3]) == "+0.200 ± 0.248"  # t(2, 0.975) = 4.303


def test_the_smallest_run_prints_its_table() -> None:
    command = [sys.executable, BENCHMARKS / "fine_tune.py", "--table", "digits", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| sg_former_nano, fine-tuned | 0." in done.stdout
    assert "| sg_former_nano, from scratch | 0." in done.stdout
