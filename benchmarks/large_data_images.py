"""The image folders of benchmarks/large_data.py, and what its tables measure processes with."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

NUM_DIFFERENT: Final = 2000  # JPEGs; the others are copies, which take as much disk and memory
VAL_SHARE: Final = 0.04  # as ImageNet's
QUALITY: Final = 90
CGROUPS: Final = Path("/sys/fs/cgroup")


def jpegs(number: int, side: int) -> Iterator[bytes]:
    """Random crops of scikit-learn's two photographs, of this shorter side, as JPEGs."""
    rng = np.random.default_rng(0)
    pictures = load_sample_images().images
    for i in range(number):
        picture = pictures[i % 2]
        height = int(rng.integers(200, picture.shape[0] + 1))
        width = min(picture.shape[1], int(height * rng.uniform(1, 1.5)))
        top = rng.integers(0, picture.shape[0] - height + 1)
        left = rng.integers(0, picture.shape[1] - width + 1)
        crop = picture[top : top + height, left : left + width, ::-1]
        size = (side * width // height, side)
        image = cv2.resize(np.ascontiguousarray(crop), size, interpolation=cv2.INTER_AREA)
        yield cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def image_folder(work: Path, num_images: int, num_classes: int, side: int) -> Path:
    """A folder of JPEGs, train and val, in classes; written unless it is there."""
    root = work / f"{num_images}-{num_classes}-{side}"
    if (root / "complete").exists():
        return root
    contents = list(jpegs(min(NUM_DIFFERENT, num_images), side))
    num_val = max(num_classes, int(VAL_SHARE * num_images))

    def write(split: str, i: int) -> None:
        path = root / split / f"class{i % num_classes:05}" / f"{i:08}.jpg"
        path.write_bytes(contents[i % len(contents)])

    for split, number in (("train", num_images), ("val", num_val)):
        for i in range(num_classes):
            (root / split / f"class{i:05}").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i, split=split: write(split, i), range(number)))
    (root / "complete").touch()
    return root


def files_below(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (Path(path, name) for name in names)


def forget(folder: Path) -> None:
    """Drops a folder's files from the page cache, as in a set far larger than memory."""
    for path in files_below(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_below(folder))


def peak_mib() -> dict[str, float]:
    """Peak memory of this process, and of its largest child, in MiB."""
    kinds = {"process": resource.RUSAGE_SELF, "largest child": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(who).ru_maxrss / 1024 for name, who in kinds.items()}


@contextlib.contextmanager
def held_to(memory_mib: int | None) -> Iterator[list[str]]:
    """The beginning of a command that has so much memory, its files in memory included.

    For root, in a control group of its own; None: an empty beginning.
    """
    if memory_mib is None:
        yield []
        return
    is_v2 = (CGROUPS / "cgroup.controllers").exists() and not (CGROUPS / "memory").is_dir()
    group = CGROUPS / ("" if is_v2 else "memory") / f"held-{os.getpid()}"
    group.mkdir()
    try:
        limit = group / ("memory.max" if is_v2 else "memory.limit_in_bytes")
        limit.write_text(str(memory_mib * 2**20))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        group.rmdir()


def in_a_process(
    module: str,
    *arguments: object,
    variables: dict[str, str] | None = None,
    memory_mib: int | None = None,
) -> Any:
    """Runs a module of this folder as a program; returns the JSON of its last line."""
    command: Sequence[str] = [sys.executable, str(Path(__file__).with_name(f"{module}.py"))]
    with held_to(memory_mib) as beginning:
        done = subprocess.run(
            [*beginning, *command, *map(str, arguments)],
            env={**os.environ, **(variables or {})},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.strip().splitlines()[-1])
