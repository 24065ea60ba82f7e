"""Fixtures for all tests: a small folder of scikit-learn's digits, settings, a finished search."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from command_line import PATIENCE_SECONDS, PROGRAM, descendants
from digits import write_image_folder
from listening import listening
from searches import FinishedSearch, search_values, write_search

from sgformer.config import TrainConfig

if TYPE_CHECKING:
    from extensions import Extendable
    from pages import Visitor
    from playwright.sync_api import Browser

# One thread for torch in every process of the tests, before any imports it: tests run beside one
# another, and threads that wait for a core take 2.5 times as long (measured on two cores).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background lets them ignore Ctrl-C, and so do the programs
# that they start, to which some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts whole searches first, so that the processes end together, with short files."""
    items.sort(key=lambda item: "end_to_end" not in item.path.stem)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 scans: six of each digit in train, three in val, two in test."""
    return write_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_image_folder(image_folder: Path, tmp_path: Path) -> Path:
    """A copy of the image folder, which a test may change."""
    import shutil

    return Path(shutil.copytree(image_folder, tmp_path / "images"))


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def train_config(image_folder: Path, cache_dir: Path) -> TrainConfig:
    """A training of three epochs with the smallest model."""
    return TrainConfig.model_validate(
        {
            "model": {"name": "sg_former_pico", "drop_path_rate": 0.0},
            "data": {
                "data_dir": image_folder,
                "image_size": 32,
                "crop_pct": 1.0,
                "cache_dir": cache_dir,
            },
            "augmentation": {"policy": "mild"},
            "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 1},
            "max_epochs": 3,
            "device": "cpu",
        }
    ).resolved()


@pytest.fixture(scope="session")
def extendable(
    image_folder: Path, train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> "Extendable":
    """A model of the digits 0 to 7, and images of an extension by 8 and 9."""
    from extensions import write_extendable  # imports torch

    return write_extendable(image_folder, train_config, tmp_path_factory.mktemp("extendable"))


@pytest.fixture
def search_file(tmp_path: Path, image_folder: Path, cache_dir: Path) -> Path:
    """A search file: learning rate and dropouts of the smallest model, four epochs a trial."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(search_values(image_folder, cache_dir)))
    return path


@pytest.fixture
def edit(search_file: Path) -> Callable[[Callable[[dict], None]], Path]:
    """A function that changes the search file's values in place."""

    def change(how: Callable[[dict], None]) -> Path:
        values = yaml.safe_load(search_file.read_text())
        how(values)
        search_file.write_text(yaml.safe_dump(values, sort_keys=False))
        return search_file

    return change


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, image_folder: Path, cache_dir: Path
) -> FinishedSearch:
    """A finished search of eight trials; one diverges, one fails; finalists on two seeds."""
    root = tmp_path_factory.mktemp("finished")
    (root / "search_spaces").mkdir()
    (root / "digits").symlink_to(image_folder)
    file = write_search(
        root / "search_spaces" / "digits.yaml", image_folder, cache_dir,
        retrain={"top_k": 3, "seeds": 2}, export={"uint8": True},
    )  # fmt: skip
    folder = root / "runs" / "digits"
    process = subprocess.Popen(
        [*PROGRAM, "search", str(file), "--output-dir", str(folder.parent)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (folder / "search.yaml").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # The workers are still importing torch, so trial 2 will find this broken checkpoint.
    broken = folder / "trials" / "2" / "last.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("a checkpoint that is none")
    addresses: set[str] = set()
    threading.Thread(target=_note_listening, args=(process, addresses), daemon=True).start()
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    return FinishedSearch(root, file, folder, out, err, frozenset(addresses))


def _note_listening(process: subprocess.Popen, addresses: set[str]) -> None:
    """Notes, twice a second, at which addresses the search and its processes listen."""
    while process.returncode is None:
        pids = [process.pid, *descendants(process.pid)]
        addresses.update(map(str, listening(pids)))
        time.sleep(0.5)


@pytest.fixture(scope="module")  # as long as it lives, asyncio.run fails in its thread
def browser() -> "Iterator[Browser]":
    """Debian's Chromium, for tests that are marked `browser`."""
    from pages import chromium

    with chromium() as one:
        yield one


@pytest.fixture
def visitor(browser: "Browser") -> "Iterator[Visitor]":
    """Opens pages; the test fails if one of them has an error, or asks another machine."""
    from pages import Visitor

    one = Visitor(browser)
    yield one
    one.close()
    assert one.faults == []
