"""How much of the gap to its teacher a small model closes by distillation.

    python benchmarks/distillation.py [--table digits|fashion] [--seeds 5] [--epochs 20]
        [--teacher-epochs 30] [--temperature 4] [--weight 0.7] [--fashion DIR] [--work-dir DIR]

The teacher is one sg_former_micro, trained on seed 0; the students are sg_former_pico, alone and
distilled, on the same seeds from 1 on. Top-1 on test images by the best epoch on val; a gain is
paired by seed, with its 95 % interval.

digits   300 train, 100 val and 297 test images of scikit-learn's digits.
fashion  1,000 train, 300 val and 2,000 test images of Fashion-MNIST (Debian's package
         dataset-fashion-mnist).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fine_tune import FASHION, Side, compare, in_work_folder, trained
from fine_tune_images import write_digits, write_fashion

FASHION_IMAGES: Final = {"train": 1000, "val": 300, "test": 2000}


def settings(model: str, epochs: int, **more: object) -> Mapping[str, Any]:
    """The settings of a training from new weights."""
    return {
        "model": {"name": model, "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {"image_size": 32, "crop_pct": 1.0},
        "augmentation": {"policy": "mild", "min_crop_area": 0.7},
        "optimizer": {"learning_rate": 3e-3, "batch_size": 32, "warmup_epochs": 1},
        "early_stopping": {"patience": None},
        "max_epochs": epochs,
        **more,
    }


def measure(arguments: argparse.Namespace, work: Path) -> None:
    """Trains teacher and students, and prints the table."""
    images = work / arguments.table
    if arguments.table == "digits":
        write_digits(images)
    else:
        write_fashion(arguments.fashion, images, FASHION_IMAGES)
    folder = work / f"teacher-{arguments.table}-{arguments.teacher_epochs}"
    teacher = Side("teacher", settings("sg_former_micro", arguments.teacher_epochs))
    print(f"teacher's test top-1: {trained(teacher, images, 0, folder):.4f}", flush=True)
    taught = {
        "teacher": str(folder),
        "temperature": arguments.temperature,
        "weight": arguments.weight,
    }
    sides = [
        Side("pico distilled", settings("sg_former_pico", arguments.epochs, distillation=taught)),
        Side("pico alone", settings("sg_former_pico", arguments.epochs)),
    ]
    compare(sides, images, range(1, arguments.seeds + 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=30)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--weight", type=float, default=0.7)
    parser.add_argument("--fashion", type=Path, default=FASHION)
    in_work_folder(parser, measure)


if __name__ == "__main__":
    main()
