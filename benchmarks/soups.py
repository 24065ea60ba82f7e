"""What an ensemble and a soup of several trainings gain over one of them.

    python benchmarks/soups.py [--start scratch|trained] [--repeats 3] [--members 4] [--epochs 10]
        [--work-dir DIR]

A repeat trains `--members` models of sg_former_pico, on seeds of its own and with learning rates
and dropouts that differ as finalists' do; the first stands for the winner. Members are chosen by
val as a search chooses them (hpo/selection/greedy.py). Test top-1 of the first model alone, of the
ensemble, of the soup, and of what would be delivered; gains are paired by repeat, with Student's
95 % interval.

scratch  300 train, 100 val and 297 test images of scikit-learn's digits; new weights.
trained  The same, but each training starts from one pico that was trained on half of the train
         images, for as many epochs.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fine_tune import Side, in_work_folder, interval, trained
from fine_tune_images import write_digits

RATES: Final = (3e-3, 2e-3, 4e-3, 1.5e-3, 2.5e-3, 3.5e-3)
DROPOUTS: Final = (0.1, 0.0, 0.2, 0.3, 0.15, 0.05)
KINDS: Final = ("soup", "ensemble")


def settings(epochs: int, i: int, weights: Path | None) -> Mapping[str, Any]:
    """The settings of the i-th model; a fine-tuned one has a third of the learning rate."""
    rate = RATES[i % len(RATES)] * (1.0 if weights is None else 1 / 3)
    return {
        "model": {
            "name": "sg_former_pico", "drop_path_rate": 0.0, "checkpoint": weights,
            "drop_rate": DROPOUTS[i % len(DROPOUTS)],
        },
        "data": {"image_size": 32, "crop_pct": 1.0},
        "augmentation": {"policy": "mild", "min_crop_area": 0.7},
        "optimizer": {"learning_rate": rate, "batch_size": 32, "warmup_epochs": 1},
        "early_stopping": {"patience": None},
        "max_epochs": epochs,
    }  # fmt: skip


def half_of(images: Path, folder: Path) -> Path:
    """A folder with every second train image, and all of val, as links."""
    for source in sorted(images.rglob("*.png")):
        split, label, name = source.relative_to(images).parts
        target = folder / split / label / name
        if split == "test" or (split == "train" and int(source.stem) % 2):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(source)
    return folder


def top1_of(path: Path) -> float:
    """The test top-1 of a checkpoint."""
    from hpo.delivery.evaluation import evaluate_checkpoint

    *_, last = evaluate_checkpoint(path)
    assert last.metrics is not None
    return float(last.metrics["test"]["top1"])


def combined(kind: Any, folders: list[Path], target: Path) -> tuple[float, bool]:
    """The test top-1 of a combination, made whether or not it is worth it; and whether it is."""
    from hpo.delivery.combining import Combining, combine
    from sgformer.training.checkpoint import save_checkpoint
    from sgformer.training.trained_model import ensemble_checkpoint, load_trained, soup_checkpoint

    config, _, _ = load_trained(folders[0] / "best.safetensors")
    how = Combining(kind, "val_top1", len(folders), tuple(folders), target, None, config.data)
    *_, last = combine(how)
    assert last.choice is not None
    paths = [folders[i] / "best.safetensors" for i in last.choice.members]
    make = soup_checkpoint if kind == "soup" else ensemble_checkpoint
    save_checkpoint(target / "best.safetensors", *make(paths))
    gain = last.choice.gain
    print(
        f"{kind}: {len(paths)} members, gain on val {gain.mean:+.3f} ({gain.low:+.3f} to "
        f"{gain.high:+.3f})", flush=True,
    )  # fmt: skip
    return top1_of(target / "best.safetensors"), last.choice.is_worth_it


def measure(arguments: argparse.Namespace, work: Path) -> None:
    """Trains all models of all repeats, and prints the table."""
    images, weights = work / "digits", None
    write_digits(images)
    if arguments.start == "trained":
        half = half_of(images, work / "half")
        first = Side("half", settings(arguments.epochs, 0, None))
        trained(first, half, 1000, work / "pretrained")
        weights = work / "pretrained" / "best.safetensors"
    found: dict[str, list[float]] = {"winner alone": []}
    delivered = dict.fromkeys(KINDS, 0)
    for repeat in range(arguments.repeats):
        folders = []
        for i in range(arguments.members):
            folder = work / f"{arguments.start}-{repeat}-{i}"
            side = Side(str(i), settings(arguments.epochs, i, weights))
            top1 = trained(side, images, 100 * repeat + i + 1, folder)
            folders.append(folder)
            found["winner alone"] += [top1] if i == 0 else []
            print(f"repeat {repeat}, model {i}: {top1:.4f}", flush=True)
        for kind in KINDS:
            top1, is_worth_it = combined(kind, folders, work / f"{kind}-{repeat}")
            alone = found["winner alone"][-1]
            found.setdefault(kind, []).append(top1)
            found.setdefault(f"{kind}, if delivered", []).append(top1 if is_worth_it else alone)
            delivered[kind] += is_worth_it
    print(f"\ndelivered in {delivered} of {arguments.repeats} repeats")
    print("\n| | test top-1, each repeat | mean | gain over the winner alone |\n|---|---|---|---|")
    base = found["winner alone"]
    for name, values in found.items():
        gains = [a - b for a, b in zip(values, base, strict=True)]
        each = ", ".join(f"{value:.3f}" for value in values)
        gain = "" if values is base else interval(gains)
        print(f"| {name} | {each} | {statistics.mean(values):.3f} | {gain} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", choices=("scratch", "trained"), default="scratch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    in_work_folder(parser, measure)


if __name__ == "__main__":
    main()
