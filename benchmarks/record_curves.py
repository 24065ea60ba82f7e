"""Records the learning curves of the bed `own` (own_bed.py): SG-Formers on small images.

    OMP_NUM_THREADS=1 nice -n 15 python benchmarks/record_curves.py record FOLDER
        [--fashion DIR] [--configurations 256] [--trainings N] [--until 04:40]
    python benchmarks/record_curves.py pack FOLDER benchmarks/curves/own.json.gz
    python benchmarks/record_curves.py unpack benchmarks/curves/own.json.gz FOLDER

Configurations are points of a scrambled Sobol sequence in SPACE, the default configuration first.
The shared trainer trains each for 16 epochs on scikit-learn's digits and on Fashion-MNIST (of each
400 train, 250 val and 250 test images), at 32 pixels, on one thread; every third configuration
with a second seed, too. Without early stopping: a curve is whole, or ends where it diverged.

`record` writes each finished training to FOLDER/trainings.jsonl at once, with val and test top-1
as numbers of images, val loss, and CPU seconds of the epoch without the test images. It may be
killed at any time; the same command goes on, also in a folder that `unpack` made. A prefix is
useful: both data sets advance together. A training takes some 10 to 30 CPU seconds.

Fashion-MNIST: Debian's package dataset-fashion-mnist (`apt-get download dataset-fashion-mnist`,
`dpkg -x FILE DIR`; --fashion DIR/usr/share/datasets/fashion-mnist).
"""

import argparse
import contextlib
import gzip
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

# One thread a training. The variables must be set before NumPy and torch are imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from fine_tune_images import write_digits, write_fashion

Params = dict[str, Any]

FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
MAX_EPOCHS: Final = 16
COUNTS: Final = {
    "digits": {"train": 400, "val": 250, "test": 250},
    "fashion": {"train": 400, "val": 250, "test": 250},
}
# The least area of a random crop is the strength of augmentation: a smaller one is stronger.
SPACE: Final[dict[str, dict[str, Any]]] = {
    "model.name": {
        "type": "categorical",
        "choices": ["sg_former_pico", "sg_former_nano", "sg_former_micro"],
    },
    "optimizer.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "optimizer.weight_decay": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
    "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5},
    "model.attn_drop_rate": {"type": "float", "low": 0.0, "high": 0.3},
    "model.drop_path_rate": {"type": "float", "low": 0.0, "high": 0.3},
    "optimizer.batch_size": {"type": "int", "low": 32, "high": 128, "log": True},
    "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2},
    "augmentation.min_crop_area": {"type": "float", "low": 0.3, "high": 1.0},
}
# micro takes several times as long as pico: fewer of them, so that more are recorded in all.
SHARES: Final = (0.5, 0.38, 0.12)
DEFAULT: Final[Params] = {
    "model.name": "sg_former_nano", "optimizer.learning_rate": 5e-4,
    "optimizer.weight_decay": 0.05, "model.drop_rate": 0.1, "model.attn_drop_rate": 0.1,
    "model.drop_path_rate": 0.1, "optimizer.batch_size": 64, "label_smoothing": 0.1,
    "augmentation.min_crop_area": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Recorded:
    """A finished training.

    Attributes:
        data: Its data set.
        configuration: The number of its configuration.
        seed: Its seed.
        params: Its configuration.
        val_top1, test_top1: How many images are classified rightly after each epoch.
        val_loss: The cross-entropy on val after each epoch; of a diverged one, the epochs before.
        seconds: CPU seconds of each epoch: training and val.
    """

    data: str
    configuration: int
    seed: int
    params: Params
    val_top1: list[int]
    test_top1: list[int]
    val_loss: list[float]
    seconds: list[float]

    @property
    def key(self) -> tuple[str, int, int]:
        return self.data, self.configuration, self.seed


def configurations(num: int) -> list[Params]:
    """The first `num` configurations: the default one, then a Sobol sequence."""
    from scipy.stats import qmc

    # A power of two is drawn, so that a larger `num` begins with the same configurations.
    points = qmc.Sobol(len(SPACE), scramble=True, rng=np.random.default_rng(28)).random(1024)
    return [DEFAULT, *(decoded(point) for point in points[: num - 1])]


def decoded(point: Any) -> Params:
    """The configuration at a point (9,) of the unit cube."""
    params: Params = {}
    for u, (name, entry) in zip(point.tolist(), SPACE.items(), strict=True):
        if entry["type"] == "categorical":
            index = int(np.searchsorted(np.cumsum(SHARES), u, side="right"))
            params[name] = entry["choices"][min(index, len(SHARES) - 1)]
            continue
        low, high = entry["low"], entry["high"]
        value = low * (high / low) ** u if entry.get("log") else low + u * (high - low)
        params[name] = round(value) if entry["type"] == "int" else float(f"{value:.6g}")
    return params


def planned(num: int) -> Iterator[tuple[str, int, int, Params]]:
    """Data set, number, seed and params of each training, in the order of the work."""
    for i, params in enumerate(configurations(num)):
        for seed in range(2 if i % 3 == 0 else 1):
            for data in COUNTS:
                yield data, i, seed, params


def train(data: str, configuration: int, seed: int, params: Params, work: Path) -> Recorded:
    """Trains a configuration with the shared trainer."""
    from hpo.config.search_space import apply_params
    from sgformer.config import TrainConfig
    from sgformer.data.image_data import load_image_data
    from sgformer.training.trainer import Trainer

    base = TrainConfig.model_validate({
        "data": {
            "data_dir": work / data, "cache_dir": work / "cache", "num_workers": 0,
            "image_size": 32, "crop_pct": 1.0,
        },
        "augmentation": {"policy": "mild", "horizontal_flip_prob": 0.5 * (data == "fashion")},
        "optimizer": {"warmup_epochs": 1}, "early_stopping": {"patience": None},
        "max_epochs": MAX_EPOCHS, "seed": seed, "device": "cpu",
    })  # fmt: skip
    config = apply_params(base, params, "record_curves")
    trainer = Trainer(config, load_image_data(config.data))
    recorded = Recorded(data, configuration, seed, params, [], [], [], [])
    begin = time.process_time()
    for metrics in trainer.epochs():
        seconds = time.process_time() - begin
        if np.isfinite(metrics.val_loss):
            recorded.val_top1.append(round(metrics.val_top1 * COUNTS[data]["val"]))
            test = trainer.evaluate("test")
            recorded.test_top1.append(round(test.top1 * test.num_images))
            recorded.val_loss.append(float(f"{metrics.val_loss:.4g}"))
            recorded.seconds.append(round(seconds, 2))
        begin = time.process_time()
    return recorded


def read(folder: Path) -> list[Recorded]:
    """The finished trainings of a folder."""
    found, path = [], folder / "trainings.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a kill has cut this line
            found += [Recorded(**json.loads(line))] if line else []
    return found


def append(folder: Path, training: Recorded) -> None:
    with (folder / "trainings.jsonl").open("a") as file:
        # Begins with a newline: the last line may have been cut by a kill.
        file.write("\n" + json.dumps(asdict(training)))


def record(arguments: argparse.Namespace) -> None:
    """Trains what is missing in the folder, until all is done, or the time has come."""
    import torch

    torch.set_num_threads(1)
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder / "digits", COUNTS["digits"])
    write_fashion(arguments.fashion, folder / "fashion", COUNTS["fashion"])
    done = {training.key for training in read(folder)}
    num_left = arguments.trainings
    for data, i, seed, params in planned(arguments.configurations):
        if (data, i, seed) in done:
            continue
        if num_left == 0 or (arguments.until and f"{datetime.now():%H:%M}" >= arguments.until):
            break
        num_left -= 1
        begin = time.monotonic()
        training = train(data, i, seed, params, folder)
        append(folder, training)
        print(
            f"{data} {i} seed {seed}: {params['model.name']}, "
            f"{max(training.val_top1, default=0) / COUNTS[data]['val']:.3f} val top-1, "
            f"{sum(training.seconds):.0f} CPU s, {time.monotonic() - begin:.0f} s", flush=True,
        )  # fmt: skip


def pack(arguments: argparse.Namespace) -> None:
    """Writes all finished trainings of the folder to one small file."""
    import torch

    trainings = sorted(read(arguments.folder), key=lambda one: (one.configuration, *one.key))
    content = {
        "made_by": "benchmarks/record_curves.py",
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "max_epochs": MAX_EPOCHS,
        "num_images": COUNTS,
        "space": SPACE,
        "default": DEFAULT,
        "configurations": {one.configuration: one.params for one in trainings},
        "trainings": [
            {name: value for name, value in asdict(one).items() if name != "params"}
            for one in trainings
        ],
    }
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, separators=(",", ":"))
    arguments.target.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{len(trainings)} trainings, {arguments.target.stat().st_size / 1000:.0f} kB")


def unpack(arguments: argparse.Namespace) -> None:
    """Writes the trainings of a packed file to a folder, where `record` goes on."""
    content = json.loads(gzip.decompress(arguments.source.read_bytes()))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    done = {training.key for training in read(arguments.folder)}
    for values in content["trainings"]:
        params = content["configurations"][str(values["configuration"])]
        training = Recorded(**values, params=params)
        if training.key not in done:
            append(arguments.folder, training)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--fashion", type=Path, default=FASHION)
    recording.add_argument("--configurations", type=int, default=256, help="at most 1025")
    recording.add_argument("--trainings", type=int, default=-1, help="at most; default: all")
    recording.add_argument("--until", help="the time of day, 04:40, when nothing more is begun")
    recording.set_defaults(run=record)
    packing = commands.add_parser("pack")
    packing.add_argument("folder", type=Path)
    packing.add_argument("target", type=Path)
    packing.set_defaults(run=pack)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("source", type=Path)
    unpacking.add_argument("folder", type=Path)
    unpacking.set_defaults(run=unpack)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
