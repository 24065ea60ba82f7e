"""Tests of benchmarks/own_bed.py and of the regrets of benchmarks/beds.py, on a small file."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKOUT = Path(__file__).parents[2]
BENCHMARKS = CHECKOUT / "benchmarks"
IMAGES = {"train": 50, "val": 100, "test": 100}
COMMITTED = BENCHMARKS / "curves/own.json.gz"


@pytest.fixture(autouse=True)
def _beds_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def packed(folder: Path) -> Path:
    """Three configurations, of which the second diverges and the first has two seeds."""
    from record_curves import DEFAULT, SPACE

    rates = {"0": 5e-4, "1": 1e-2, "2": 1e-3}
    trainings = [
        {"data": data, "configuration": number, "seed": seed, "val_loss": [], "seconds": [1.0],
         "val_top1": val, "test_top1": test}
        for data in ("digits", "fashion")
        for number, seed, val, test in (
            (0, 0, [20, 60, 60], [10, 50, 40]), (0, 1, [40, 40, 60], [30, 50, 60]),
            (1, 0, [30], [20]), (2, 0, [30, 90, 80], [30, 70, 80]),
        )
    ]  # fmt: skip
    content = {
        "max_epochs": 3, "space": SPACE, "default": DEFAULT, "trainings": trainings,
        "num_images": dict.fromkeys(("digits", "fashion"), IMAGES),
        "configurations": {
            number: {**DEFAULT, "optimizer.learning_rate": rate} for number, rate in rates.items()
        },
    }  # fmt: skip
    file = folder / "own.json.gz"
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    return file


def task_of(file: Path, name: str = "digits") -> Any:
    from beds import load_task

    return load_task("own", file, name)


def test_a_recorded_configuration_has_its_own_curve_the_mean_of_its_seeds(tmp_path: Path) -> None:
    task = task_of(packed(tmp_path))
    values, seconds = task.curve(task.default)
    np.testing.assert_allclose(values, [30, 50, 60], atol=1e-6)
    np.testing.assert_allclose(task.test_curve(task.default), [20, 50, 50], atol=1e-6)
    np.testing.assert_allclose(seconds, 1.0)


def test_between_recorded_configurations_the_curve_lies_between_theirs(tmp_path: Path) -> None:
    task = task_of(packed(tmp_path))
    values, _ = task.curve({**task.default, "optimizer.learning_rate": 7e-4})
    assert 50 < values[1] < 90


def test_a_diverged_training_goes_on_as_bad_as_guessing(tmp_path: Path) -> None:
    task = task_of(packed(tmp_path))
    np.testing.assert_allclose(task.curve(task.params[1])[0], [30, 10, 10], atol=1e-6)


def test_the_best_has_no_regret_by_its_best_epoch_and_some_by_its_last(tmp_path: Path) -> None:
    from beds import regret, regret_by

    task = task_of(packed(tmp_path))
    best = task.params[2]
    values, _ = task.curve(best)
    for normalisation in ("median", "min"):
        assert regret(task, values, normalisation) == pytest.approx(0, abs=1e-6)
        assert regret_by(task, best, "best", normalisation) == pytest.approx(0, abs=1e-6)
        assert regret_by(task, best, "last", normalisation) == pytest.approx(0, abs=1e-6)
        assert regret_by(task, best, "test", normalisation) == pytest.approx(0, abs=1e-6)
    # Of the others the default delivers 60 at its best and last epoch, the diverged one 30 and 10.
    assert regret_by(task, task.default, "best", "median") == pytest.approx(1)
    assert regret_by(task, task.default, "best", "min") == pytest.approx(30 / 60)
    assert regret_by(task, task.default, "last", "min") == pytest.approx(20 / 70)
    # On test the best epoch on val counts: of the best 70, of the default 50, of the other 20.
    assert regret_by(task, task.default, "test", "min") == pytest.approx(20 / 50)


def test_noise_is_the_deviation_between_the_seeds(tmp_path: Path) -> None:
    task = task_of(packed(tmp_path))
    draws = [task.noise(np.random.default_rng(seed)) for seed in range(8)]
    expected = np.array([-20, 20, 0]) / np.sqrt(2)
    for draw in draws:
        np.testing.assert_allclose(np.abs(draw), np.abs(expected))
    assert len({float(draw[0]) for draw in draws}) == 2


def test_data_sets_are_split_into_development_and_report(tmp_path: Path) -> None:
    from beds import task_names

    file = packed(tmp_path)
    assert task_names("own", file, "develop") == ["digits"]
    assert task_names("own", file, "report") == ["fashion"]


def test_configurations_begin_with_the_default_and_do_not_depend_on_their_number() -> None:
    from record_curves import DEFAULT, configurations, planned

    few, many = configurations(4), configurations(12)
    assert few[0] == DEFAULT
    assert many[:4] == few
    assert [(data, i, seed) for data, i, seed, _ in planned(2)] == [
        ("digits", 0, 0), ("fashion", 0, 0), ("digits", 0, 1), ("fashion", 0, 1),
        ("digits", 1, 0), ("fashion", 1, 0),
    ]  # fmt: skip


def test_a_training_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    from record_curves import DEFAULT, read

    whole = {
        "data": "digits", "configuration": 0, "seed": 0, "params": DEFAULT,
        "val_top1": [25], "test_top1": [20], "val_loss": [2.3], "seconds": [1.0],
    }  # fmt: skip
    line = json.dumps(whole)
    (tmp_path / "trainings.jsonl").write_text(f"\n{line}\n{line[:40]}\n{line}")
    assert [training.key for training in read(tmp_path)] == [("digits", 0, 0)] * 2


def test_a_search_is_simulated_on_the_bed_and_measured_in_every_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, BENCHMARKS / "search_efficiency.py", "--bed", "own", "--data",
            packed(tmp_path), "--strategies", "random+asha,tpe+asha+default", "--workers", "2",
            "--seeds", "1", "--budget", "2", "--processes", "1", "--measures",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best - min, test epoch") == 2


def test_the_committed_file_is_a_small_bed_of_both_data_sets() -> None:
    from beds import regret_by, task_names

    assert COMMITTED.stat().st_size < 300_000
    for name in task_names("own", COMMITTED, "all"):
        task = task_of(COMMITTED, name)
        best = task.params[int(task.values.max(1).argmax())]
        assert task.params[0] == task.default
        assert regret_by(task, best, "best") == pytest.approx(0, abs=1e-6)
        assert np.isfinite(task.curve(task.default)[0]).all()


def test_a_packed_file_is_unpacked_to_go_on_and_packed_again_alike(tmp_path: Path) -> None:
    script, again = BENCHMARKS / "record_curves.py", tmp_path / "again.json.gz"
    for command in (
        ("unpack", COMMITTED, tmp_path), ("unpack", COMMITTED, tmp_path), ("pack", tmp_path, again)
    ):  # fmt: skip
        subprocess.run([sys.executable, script, *command], check=True)
    first, second = (json.loads(gzip.decompress(file.read_bytes())) for file in (COMMITTED, again))
    assert second["trainings"] == first["trainings"]
    assert second["configurations"] == first["configurations"]
