"""The table `cache` of benchmarks/large_data.py."""

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from large_data_images import forget, image_folder, in_a_process, peak_mib, size_of

sys.path.insert(0, str(Path(__file__).parents[1]))
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--formats", nargs="+", default=["raw", "jpeg"])
    parser.add_argument("--augmentation", choices=["crop", "guide"], default="crop")
    parser.add_argument("--repeats", type=int, default=2, help="later epochs of each kind")
    parser.add_argument("--batches", type=int, help="of such an epoch, instead of all")
    parser.add_argument("--memory", type=int, metavar="MIB", help="of a loader, files included")


def measure(arguments: argparse.Namespace) -> None:
    root = image_folder(arguments.work_dir, arguments.images, arguments.classes, arguments.side)
    shared = [root, arguments.image_size, arguments.num_workers, arguments.augmentation]
    print(
        f"{arguments.images} JPEGs, {size_of(root) / 2**20:.0f} MiB; {arguments.image_size} px, "
        f"{arguments.num_workers} loading processes, augmentation: {arguments.augmentation}"
    )
    _print("listing", in_a_process("large_data_cache", "listing", root, arguments.work_dir))
    repeats = [arguments.repeats, arguments.batches or 0]
    for format_ in arguments.formats:
        cache = arguments.work_dir / f"cache-{format_}"
        shutil.rmtree(cache, ignore_errors=True)
        first = in_a_process("large_data_cache", "ours", *shared, 0, 0, cache, format_)
        size = size_of(cache)
        forget(cache)
        again = in_a_process(
            "large_data_cache", "ours", *shared, *repeats, cache, format_,
            memory_mib=arguments.memory,
        )  # fmt: skip
        again["cold first"] = first["first batch"]
        _print(f"ours, {format_}, cache of {size / 2**20:.0f} MiB", again)
    forget(root)
    timm = in_a_process("large_data_cache", "timm", *shared, *repeats, memory_mib=arguments.memory)
    _print("timm", timm)


def _print(name: str, measured: dict[str, Any]) -> None:
    print(f"{name}:")
    for key, value in measured.items():
        print(f"  {key}: {value if isinstance(value, dict) else f'{value:.2f}'}")


def ours(
    root: Path, size: int, num_workers: int, augmentation: str, cache: Path, cache_format: str
) -> tuple[float, Callable[[int], Iterable[object]], list[Path]]:
    """Seconds of opening, a function that gives the batches of an epoch, and what is read."""
    from sgformer.catalog import Preprocessing
    from sgformer.config import AugmentationConfig
    from sgformer.data.augmentation import erasing_prob, eval_transform, train_transform
    from sgformer.data.image_data import load_image_data
    from sgformer.data.loader import BatchLoader, ImageDataset
    from sgformer.data.model_input import ModelInput
    from sgformer.data.plans import TrainPlan
    from sgformer.data_config import DataConfig

    start = time.perf_counter()
    config = DataConfig(
        data_dir=root, image_size=size, cache_dir=cache, cache_format=cache_format
    ).with_preprocessing(Preprocessing())
    data = load_image_data(config)
    seconds = time.perf_counter() - start
    off = {"color_jitter": 0, "rand_augment_magnitude": 0, "random_erasing_prob": 0}
    policy = AugmentationConfig(**({} if augmentation == "guide" else off))
    model_input = ModelInput(config.preprocessing)
    dataset = ImageDataset(
        data.images, eval_transform(config), train_transform(config, policy), erasing_prob(policy)
    )
    loader = BatchLoader(dataset, num_workers)

    def epoch(number: int) -> Iterator[object]:
        plan = TrainPlan(data.samples("train"), BATCH, number)
        return map(model_input, loader.batches(plan))

    return seconds, epoch, [cache]


def timms(
    root: Path, size: int, num_workers: int, augmentation: str
) -> tuple[float, Callable[[int], Iterable[object]], list[Path]]:
    from timm.data import create_dataset, create_loader

    start = time.perf_counter()
    guide = augmentation == "guide"
    dataset = create_dataset("", root, split="train")
    loader = create_loader(
        dataset,
        (3, size, size),
        BATCH,
        is_training=True,
        re_prob=0.25 if guide else 0.0,
        re_mode="pixel",
        color_jitter=0.4 if guide else 0.0,
        auto_augment="rand-m9-mstd0.5" if guide else None,
        interpolation="bicubic",
        num_workers=num_workers,
        use_prefetcher=False,
        persistent_workers=True,
    )
    return time.perf_counter() - start, lambda _number: loader, [root]


def listing(root: Path, work: Path) -> dict[str, Any]:
    """Seconds of listing the images, by us without and with the kept list, and by timm."""
    from timm.data import create_dataset

    from sgformer.data.image_folder import read_image_folder
    from sgformer.data_config import DataConfig

    cache = work / "cache-of-lists"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    config = DataConfig(data_dir=root, cache_dir=cache)

    def seconds(what: Callable[[], object]) -> float:
        start = time.perf_counter()
        what()
        return time.perf_counter() - start

    names = ("first", "kept", "timm's, train only")
    whats: list[Callable[[], object]] = [
        lambda: read_image_folder(config),
        lambda: read_image_folder(config),
        lambda: create_dataset("", root, split="train"),
    ]
    return {name: seconds(what) for name, what in zip(names, whats, strict=True)}


def side(
    kind: str, root: str, size: str, workers: str, augmentation: str, *others: str
) -> dict[str, Any]:
    import timm.data  # noqa: F401  before the clock starts
    import torch

    import sgformer.data.augmentation
    import sgformer.data.loader  # noqa: F401

    torch.set_num_threads(1)
    repeats, num_batches, *cache = others
    start = time.perf_counter()
    shared = (Path(root), int(size), int(workers), augmentation)
    seconds, epoch, read = (
        timms(*shared) if kind == "timm" else ours(*shared, Path(cache[0]), cache[1])
    )
    result: dict[str, Any] = {"opening": seconds}
    batches = iter(epoch(0))
    next(batches)
    result["first batch"] = time.perf_counter() - start
    if int(repeats):
        most = int(num_batches) or None
        if most is None:
            for _ in batches:
                pass
        result["images/s in memory"] = _images_a_second(epoch, int(repeats), most, [])
        result["images/s from the disk"] = _images_a_second(epoch, int(repeats), most, read)
    return result | {"peak MiB": {k: round(v) for k, v in peak_mib().items()}}


def _images_a_second(
    epoch: Callable[[int], Iterable[object]],
    repeats: int,
    most: int | None,
    evicted: list[Path],
) -> float:
    """The best of some epochs, of at most so many batches, after files left the memory."""
    best = 0.0
    for number in range(1, repeats + 1):
        for folder in evicted:
            forget(folder)
        batches = iter(epoch(number))
        next(batches)  # the loading processes have begun
        start = time.perf_counter()
        num_batches = sum(1 for _ in itertools.islice(batches, most))
        best = max(best, num_batches * BATCH / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(listing(*map(Path, given[1:])) if given[0] == "listing" else side(*given)))
