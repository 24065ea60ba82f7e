"""Images a second of our loader and of timm's loader, on the same JPEGs with the same transforms.

    python benchmarks/input_pipeline.py [--num-images 1000] [--num-workers 2] [--sizes 96 224]

Writes JPEGs (crops of scikit-learn's two sample pictures, 400 to 500 pixels, quality 90) into a
temporary folder. Prints the seconds of the first epoch, which for our loader includes decoding
and writing the cache, and the median images a second of four later epochs, in which the two
loaders alternate.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images
from timm.data import create_dataset, create_loader

from sgformer.catalog import Preprocessing
from sgformer.config import AugmentationConfig
from sgformer.data.augmentation import (
    POLICIES,
    erasing_prob,
    eval_transform,
    train_transform,
)
from sgformer.data.image_data import load_image_data
from sgformer.data.loader import BatchLoader, ImageDataset
from sgformer.data.model_input import ModelInput
from sgformer.data.plans import TrainPlan
from sgformer.data_config import DataConfig

BATCH_SIZE = 64
NUM_EPOCHS = 5


def write_photographs(root: Path, num_images: int, num_val: int = 2) -> None:
    rng = np.random.default_rng(0)
    pictures = load_sample_images().images
    for split, num in (("train", num_images), ("val", num_val)):
        for i in range(num):
            picture = pictures[i % 2]
            height, width = rng.integers(400, 427), rng.integers(400, 501)
            top = rng.integers(0, picture.shape[0] - height + 1)
            left = rng.integers(0, picture.shape[1] - width + 1)
            crop = picture[top : top + height, left : left + width, ::-1]
            path = root / split / "ab"[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), crop, [cv2.IMWRITE_JPEG_QUALITY, 90])


def seconds_of(batches: Callable[[], Iterable[object]]) -> float:
    start = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - start


def compare(root: Path, cache: Path, size: int, num_workers: int) -> None:
    guide = POLICIES["guide"]
    theirs = create_loader(
        create_dataset("", root, split="train"),
        (3, size, size),
        BATCH_SIZE,
        is_training=True,
        no_aug=False,
        re_prob=guide["random_erasing_prob"],
        re_mode="pixel",
        color_jitter=guide["color_jitter"],
        auto_augment=f"rand-m{guide['rand_augment_magnitude']}-mstd0.5",
        interpolation="bicubic",
        num_workers=num_workers,
        use_prefetcher=False,
    )
    timm_first = seconds_of(lambda: theirs)

    start = time.perf_counter()
    config = DataConfig(data_dir=root, image_size=size, cache_dir=cache)
    config = config.with_preprocessing(Preprocessing())
    data = load_image_data(config)
    decode_seconds = time.perf_counter() - start
    guide_config, model_input = AugmentationConfig(), ModelInput(config.preprocessing)
    dataset = ImageDataset(
        data.images,
        eval_transform(config),
        train_transform(config, guide_config),
        erasing_prob(guide_config),
    )
    loader = BatchLoader(dataset, num_workers)
    samples = data.samples("train")

    def ours(epoch: int) -> Iterator[object]:
        """An epoch's batches, normalised and erased here, as the trainer does."""
        return map(model_input, loader.batches(TrainPlan(samples, BATCH_SIZE, epoch)))

    our_first = decode_seconds + seconds_of(lambda: ours(0))

    our_later, timm_later = [], []
    for epoch in range(1, NUM_EPOCHS):
        timm_later.append(seconds_of(lambda: theirs))
        our_later.append(seconds_of(lambda epoch=epoch: ours(epoch)))
    num_images = len(samples) // BATCH_SIZE * BATCH_SIZE
    our_median, timm_median = statistics.median(our_later), statistics.median(timm_later)
    start = time.perf_counter()
    load_image_data(config)
    again = time.perf_counter() - start
    print(
        f"{size} px: ours {num_images / our_median:.0f} images/s, timm "
        f"{num_images / timm_median:.0f}: {timm_median / our_median:.2f} times; first epoch "
        f"{our_first:.2f} s ({decode_seconds:.2f} decoding), timm {timm_first:.2f} s: "
        f"{our_first / timm_first:.2f}; opening the cache again {again:.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {arguments.num_workers} loading processes")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "images")
        write_photographs(root, arguments.num_images)
        for size in arguments.sizes:
            compare(root, Path(folder, "cache"), size, arguments.num_workers)


if __name__ == "__main__":
    main()
