"""What an extension forgets, what it learns, and how long it takes.

    python benchmarks/extension.py [--table digits|fashion] [--seeds 5] [--epochs 20]
        [--exemplars 20] [--choice herding|random] [--fashion DIR] [--work-dir DIR]

A model of the first classes is extended by the last ones, on each seed: as `extend` does it
("extended"); on the new images alone, from the same weights ("new images alone"); and a model of
all classes is trained from new weights on all images ("from scratch"). Top-1 on test images by the
best epoch on val; `old before` is the model of the first classes on its own classes. The seconds
are those of training and validation, on one thread.

digits   classes 0 to 7, then 8 and 9: 300 train, 100 val and 297 test images of scikit-learn's
         digits.
fashion  items 0 to 6, then 7 to 9: 4,000 train, 500 val and 2,000 test images of Fashion-MNIST
         (Debian's package dataset-fashion-mnist).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fine_tune import FASHION, in_work_folder, interval
from fine_tune_images import write_digits, write_fashion

FASHION_IMAGES: Final = {"train": 4000, "val": 500, "test": 2000}
NUM_OLD: Final = {"digits": 8, "fashion": 7}
SIDES: Final = ("extended", "new images alone", "from scratch")


@dataclass(frozen=True)
class Figures:
    """What a way to learn new classes reaches on test images, 0..1, and its seconds."""

    old: float
    new: float
    every: float
    seconds: float


def settings(images: Path, epochs: int, seed: int) -> dict[str, Any]:
    """The settings of the model of the first classes, and of the one from scratch."""
    return {
        "model": {"name": "sg_former_pico", "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {
            "data_dir": images, "cache_dir": images.parent / "cache", "num_workers": 0,
            "image_size": 32, "crop_pct": 1.0,
        },
        "augmentation": {"policy": "mild", "min_crop_area": 0.7},
        "optimizer": {"learning_rate": 3e-3, "batch_size": 32, "warmup_epochs": 1},
        "early_stopping": {"patience": None},
        "max_epochs": epochs,
        "seed": seed,
        "device": "cpu",
    }  # fmt: skip


def train(values: Mapping[str, Any], folder: Path) -> tuple[Any, float]:
    """The trainer with the weights of its best epoch, which the folder gets; and its seconds."""
    from sgformer.config import TrainConfig
    from sgformer.data.image_data import load_image_data
    from sgformer.training.checkpoint import save_progress
    from sgformer.training.checkpoint_file import load_checkpoint
    from sgformer.training.trainer import Trainer

    config = TrainConfig.model_validate(values)
    trainer = Trainer(config, load_image_data(config.data))
    start = time.perf_counter()
    for _ in trainer.epochs():
        save_progress(trainer, folder)
    seconds = time.perf_counter() - start
    trainer.model.load_state_dict(load_checkpoint(folder / "best.safetensors")[0])
    return trainer, seconds


def figures(trainer: Any, num_old: int, seconds: float) -> Figures:
    """Top-1 on old, on new and on all classes of the test split."""
    from hpo.delivery.forgetting import are_right

    data, test = trainer.data, trainer.data.samples("test")
    right = are_right(trainer.config, trainer.model, data, test, trainer.device)
    is_old = test[:, 1] < num_old
    new = float(right[~is_old].mean()) if (~is_old).any() else float("nan")
    return Figures(float(right[is_old].mean()), new, float(right.mean()), seconds)


def deliver(trainer: Any, folder: Path, number: int) -> None:
    """Keeps exemplars beside the checkpoint, as a delivery does."""
    from hpo.config.schema import KeptExemplarsConfig
    from hpo.delivery.exemplars import write_exemplars
    from sgformer.training.exemplars import choose_exemplars

    kept = choose_exemplars(trainer.config, trainer.model, trainer.data, number, trainer.device)
    write_exemplars(folder / "exemplars", trainer.data, kept, KeptExemplarsConfig().keep_bytes)
    (folder / "best.safetensors").rename(folder / "checkpoint.safetensors")


def extension_values(arguments: argparse.Namespace, base: Path, new: Path, seed: int) -> Any:
    """The settings of a training that `extend` delivers."""
    from hpo.transfer.extended_images import write_extended_images
    from hpo.transfer.extended_search import extended_train, extension_settings
    from sgformer.data.image_folder import read_image_folder
    from sgformer.data_config import DataConfig
    from sgformer.training.trained_model import read_trained

    (model,), classes = read_trained(base / "checkpoint.safetensors")
    found = read_image_folder(DataConfig(data_dir=new))
    images = write_extended_images(base / "images", base, classes, found)
    values: dict[str, Any] = extended_train(model, images.num_train)
    for path, value in extension_settings(base, images, None).items():
        section, name = path.split(".")[1:]
        values[section][name] = value
    values["extension"]["choice"] = arguments.choice
    for change in arguments.set:
        path, _, value = change.partition("=")
        section, _, name = path.rpartition(".")
        number = float(value) if "." in value else int(value)
        (values[section] if section else values)[name] = number
    return values | {"seed": seed}


def split_classes(images: Path, work: Path, num_old: int) -> tuple[Path, Path]:
    """Folders with links to the first classes, and to the others."""
    names = sorted(path.name for path in (images / "train").iterdir())
    parts = {"old": names[:num_old], "new": names[num_old:]}
    for part, classes in parts.items():
        for split in ("train", "val", "test"):
            (work / part / split).mkdir(parents=True, exist_ok=True)
            for name in classes:
                link = work / part / split / name
                if not link.exists():
                    link.symlink_to(images / split / name)
    return work / "old", work / "new"


def measure_seed(
    arguments: argparse.Namespace, images: Path, work: Path, seed: int
) -> tuple[Figures, dict[str, Figures]]:
    """The model of the first classes, and each side, on a seed."""
    num_old = NUM_OLD[arguments.table]
    old, new = split_classes(images, work / f"{arguments.table}-parts", num_old)
    base = work / f"base-{seed}"
    first, seconds = train(settings(old, arguments.epochs, seed), base)
    deliver(first, base, arguments.exemplars)
    before = figures(first, num_old, seconds)
    ours = extension_values(arguments, base, new, seed)
    alone = ours | {
        "extension": ours["extension"] | {"exemplars": 0, "balanced_share": 0.0},
        "distillation": {"teacher": [], "weight": 0.0},
    }
    sides = {SIDES[0]: ours, SIDES[1]: alone, SIDES[2]: settings(images, arguments.epochs, seed)}
    found = {}
    for name in arguments.sides:
        trainer, seconds = train(sides[name], work / f"{name}-{seed}")
        found[name] = figures(trainer, num_old, seconds)
        one = found[name]
        print(
            f"seed {seed}: {name}: old {before.old:.3f} before, {one.old:.3f} after; new "
            f"{one.new:.3f}; all {one.every:.3f}; {one.seconds:.0f} s", flush=True,
        )  # fmt: skip
    return before, found


def measure(arguments: argparse.Namespace, work: Path) -> None:
    """Measures all seeds, and prints the table."""
    images = work / arguments.table
    if arguments.table == "digits":
        write_digits(images)
    else:
        write_fashion(arguments.fashion, images, FASHION_IMAGES)
    first = arguments.first_seed
    told = []
    for seed in range(first, first + arguments.seeds):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            told.append(measure_seed(arguments, images, Path(folder), seed))
    print("\n| side | forgotten of old | new | all | seconds |\n|---|---|---|---|---|")
    for name in arguments.sides:
        sides = [found[name] for _, found in told]
        lost = [before.old - found[name].old for before, found in told]
        means = (statistics.mean(getattr(one, of) for one in sides) for of in ("new", "every"))
        seconds = statistics.mean(one.seconds for one in sides)
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        print(f"| {name} | {interval(lost)} | {cells} | {seconds:.0f} |")
    print(f"old classes before: {statistics.mean(before.old for before, _ in told):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=tuple(NUM_OLD), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--exemplars", type=int, default=20)
    parser.add_argument("--choice", choices=("herding", "random"), default="herding")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--set", nargs="*", default=(), metavar="PATH=NUMBER")
    parser.add_argument("--fashion", type=Path, default=FASHION)
    in_work_folder(parser, measure)


if __name__ == "__main__":
    main()
