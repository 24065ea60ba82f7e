"""What a text beside each image adds, where both are needed and where the text is noise.

    python benchmarks/fusion.py [--table both|noise] [--seeds 5] [--epochs 20] [--work-dir DIR]

sg_former_pico on scikit-learn's digits; top-1 on test images by the best epoch on val. A gain is
paired by seed, with its 95 % interval.

both   30 classes, the numbers 20 to 29, 50 to 59 and 80 to 89: the image has the last digit, the
       text names the tens in words. 900 train, 300 val and 597 test images.
noise  10 classes, the digits; the text is of random words.

Texts are encoded by the hashing encoder. "text alone" is scikit-learn's logistic regression on
the same vectors.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from fine_tune import Side, compare, in_work_folder, trained
from fine_tune_images import write_split

COUNTS: Final = {"train": 900, "val": 300, "test": 597}
TENS: Final = {"2": "twenty", "5": "fifty", "8": "eighty"}
SENTENCES: Final = (
    "the number lies above {tens}",
    "{tens} and a little more",
    "somebody wrote a number that begins with {tens}",
    "we read {tens} something on the sign",
)
WORDS: Final = ("rain", "apple", "street", "window", "paper", "blue", "music", "table", "river")
Row = tuple[str, str]  # path and text


def write_images(folder: Path, *, needs_both: bool) -> tuple[Path, Path]:
    """Writes the digits with a text each; returns the image folder and the table of texts."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    random, rows = np.random.default_rng(0), list[Row]()
    order, start = random.permutation(len(images)), 0
    for split, count in COUNTS.items():
        chosen = [int(i) for i in order[start : start + count]]
        start += count
        tens = [str(random.choice(list(TENS))) for _ in chosen]
        labels = [
            t * needs_both + str(digits.target[i]) for t, i in zip(tens, chosen, strict=True)
        ]
        write_split(folder / "images" / split, zip(labels, images[chosen], strict=True))
        names = (f"{split}/{label}/{n:05}.png" for n, label in enumerate(labels))
        texts = (_about(t, random) if needs_both else _noise(random) for t in tens)
        rows += zip(names, texts, strict=True)
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "text"), *rows])
    return folder / "images", folder / "texts.csv"


def _about(tens: str, random: np.random.Generator) -> str:
    return str(random.choice(SENTENCES)).format(tens=TENS[tens])


def _noise(random: np.random.Generator) -> str:
    return " ".join(random.choice(WORDS, 4))


def settings(epochs: int, **data: object) -> Mapping[str, Any]:
    """The settings of a training from new weights."""
    return {
        "model": {"name": "sg_former_pico", "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {"image_size": 32, "crop_pct": 1.0, **data},
        "augmentation": {"policy": "mild", "min_crop_area": 0.7},
        "optimizer": {"learning_rate": 3e-3, "batch_size": 32, "warmup_epochs": 1},
        "early_stopping": {"patience": None},
        "max_epochs": epochs,
    }


@dataclass(frozen=True)
class Fused(Side):
    """A model of image and text; it is also judged by each alone."""

    def test_top1(self, images: Path, seed: int, folder: Path) -> float:
        """The test top-1 with both; prints that of image alone and text alone."""
        from hpo.delivery.evaluation import evaluate_checkpoint

        trained(self, images, seed, folder)
        *_, last = evaluate_checkpoint(folder / "best.safetensors")
        assert last.metrics is not None
        found = last.metrics["test"]
        alone = [f"{name} {found[name]['top1']:.4f}" for name in ("image_alone", "features_alone")]
        print(f"seed {seed}: {self.name}: {', '.join(alone)}", flush=True)
        return float(found["top1"])


@dataclass(frozen=True)
class TextAlone(Side):
    """Logistic regression on the texts' vectors.

    Attributes:
        texts: The table of texts.
    """

    texts: Path

    def test_top1(self, images: Path, seed: int, folder: Path) -> float:
        """The test top-1, equal for all seeds."""
        from sklearn.linear_model import LogisticRegression

        (train, own), (test, true) = (_encoded(self.texts, split) for split in ("train", "test"))
        return float(LogisticRegression(max_iter=1000).fit(train, own).score(test, true))


def _encoded(texts: Path, split: str) -> tuple[Any, list[str]]:
    """The vectors of a split's texts, and the classes."""
    from sgformer.features.encoders import HashingEncoder

    rows = list(_rows(texts, split))
    return HashingEncoder().encode([text for _, text in rows]), [p.split("/")[1] for p, _ in rows]


def _rows(texts: Path, split: str) -> Iterator[Row]:
    with texts.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["path"].startswith(f"{split}/"):
                yield row["path"], row["text"]


def measure(arguments: argparse.Namespace, work: Path) -> None:
    """Trains both sides on all seeds, and prints the table."""
    folder = work / arguments.table
    folder.mkdir(parents=True)
    images, texts = write_images(folder, needs_both=arguments.table == "both")
    told = {"features": texts, "text_encoder": "hashing"}
    sides = [
        Fused("image and text", settings(arguments.epochs, **told)),
        Side("image alone", settings(arguments.epochs)),
        TextAlone("text alone", {}, texts),
    ]
    compare(sides, images, range(arguments.seeds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=("both", "noise"), default="both")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    in_work_folder(parser, measure)


if __name__ == "__main__":
    main()
