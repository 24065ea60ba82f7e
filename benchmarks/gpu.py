"""Checks and measures the trainer on a GPU; prints one table. `make gpu-check` runs it.

    python benchmarks/gpu.py [--device cuda|cpu] [--tiny] [--skip-tests] [--num-images 4096]

First runs the tests marked `gpu`, then measures, on photographs that it makes itself:

- images a second of sg_former_b0 and sg_former_b2 at 224 pixels, bf16, from image files to
  updates, and of timm's own loader, optimizer and loop with its pvt_v2 of similar size;
- how busy the GPU was, and the share of an epoch that was spent outside the steps;
- images a second of one, two and four trainings that share the GPU, all together;
- memory, utilisation and the share of the GPU that `resources.gpus_per_trial: auto` gives them.

It needs no network and no Ray, and ten minutes at most. The exit status is 1 if a test fails or a
measurement breaks. Without a GPU it names what it would do, and its exit status is 0; with
`--device cpu --tiny` it runs the measurements' code on a CPU, with numbers that mean nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from input_pipeline import write_photographs
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2

from hpo.config.schema import SearchConfig
from hpo.execution.cluster import TrialResources
from hpo.execution.gpu_share import share_for
from hpo.execution.profile import NUM_IMAGES, measured
from sgformer.config import TrainConfig
from sgformer.data.few_images import few_images
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.optimization.numerics import Numerics
from sgformer.optimization.optimizer_step import OptimizerStep
from sgformer.training.device import limit_memory, release_memory
from sgformer.training.trainer import Trainer
from sgformer.validation import validate

ROOT = Path(__file__).parent.parent
SECONDS_FOR_TESTS = 300
NUM_STEPS = 30  # steps alone, on images that lie on the device
Row = tuple[str, str]


@dataclass(frozen=True)
class Scale:
    """What is measured.

    Attributes:
        pairs: Our models, each with timm's model of similar size.
        packed: The model of the trainings that share the GPU.
        pixels: Side of the images.
        packed_pixels: Side of the images of the trainings that share the GPU.
        batch_size: Images of a step.
        num_images: Images of an epoch.
        shares: Numbers of trainings that share the GPU.
    """

    pairs: tuple[tuple[str, str], ...] = (
        ("sg_former_b0", "pvt_v2_b0"),
        ("sg_former_b2", "pvt_v2_b2"),
    )
    packed: str = "sg_former_micro"
    pixels: int = 224
    packed_pixels: int = 96
    batch_size: int = 128
    num_images: int = 4096
    shares: tuple[int, ...] = (1, 2, 4)


TINY = Scale((("sg_former_pico", "pvt_v2_b0"),), "sg_former_pico", 32, 32, 8, 24, (1, 2))


def make_config(scale: Scale, root: Path, model: str, pixels: int, device: str) -> TrainConfig:
    """Three epochs: the first decodes and warms up, the last is measured."""
    values = {
        "model": {"name": model},
        "data": {"data_dir": root / "images", "image_size": pixels, "cache_dir": root / "cache"},
        "optimizer": {"batch_size": scale.batch_size, "warmup_epochs": 1},
        "max_epochs": 3,
        "device": device,
    }
    return TrainConfig.model_validate(values)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_rate(config: TrainConfig, num_classes: int, device: torch.device) -> float:
    """Images a second of the steps alone, on one batch that lies on the device."""
    model = timm.create_model(
        config.model.name, num_classes=num_classes, img_size=config.data.image_size
    ).to(device)
    step = OptimizerStep(model.train(), num_classes, config, load_samples(config), device)
    size = config.optimizer.batch_size
    images = torch.randn(size, 3, config.data.image_size, config.data.image_size, device=device)
    labels = torch.zeros(size, dtype=torch.long)
    start = 0.0
    for i in range(2 * NUM_STEPS if device.type == "cuda" else 2):
        if i == NUM_STEPS or device.type == "cpu":
            wait(device)
            start = time.perf_counter()
        step.run(images, labels, seed=i, number=i + 1, learning_rate=1e-4, batch_size=size,
                 micro_batch_size=size)  # fmt: skip
    wait(device)
    num_steps = NUM_STEPS if device.type == "cuda" else 1
    return num_steps * size / (time.perf_counter() - start)


def load_samples(config: TrainConfig):
    return load_image_data(config.resolved().data).samples("train")


def measure_ours(scale: Scale, root: Path, model: str, device: torch.device) -> Iterator[Row]:
    """Images a second of the whole trainer, the GPU's utilisation, and the time beside steps."""
    config = make_config(scale, root, model, scale.pixels, device.type)
    trainer = Trainer(config, load_image_data(config.resolved().data))
    *_, last = trainer.epochs()
    precision, num_classes = trainer.numerics.precision, len(trainer.data.classes)
    del trainer
    release_memory()
    alone = step_rate(config.resolved(), num_classes, device)
    release_memory()
    outside = max(0.0, 1 - last.images_per_second / alone)
    busy = "unknown" if last.gpu_utilization is None else f"{100 * last.gpu_utilization:.0f} %"
    yield f"{model}, {scale.pixels} px, {precision}: images/s", f"{last.images_per_second:.0f}"
    yield f"{model}: images/s of the steps alone", f"{alone:.0f}"
    yield f"{model}: share of the pass outside the steps", f"{100 * outside:.0f} %"
    yield (
        f"{model}: waiting for images, s of the epoch's {last.seconds:.1f}",
        (f"{last.data_seconds:.1f}"),
    )
    yield f"{model}: utilisation of the GPU", busy
    yield f"{model}: peak memory, GiB", f"{last.peak_memory_bytes / 2**30:.1f}"


def measure_timm(scale: Scale, root: Path, name: str, device: torch.device) -> Iterator[Row]:
    """Images a second of timm's loader, optimizer and model in a plain loop."""
    on_gpu = device.type == "cuda"
    loader = create_loader(
        create_dataset("", root / "images", split="train"),
        (3, scale.pixels, scale.pixels),
        scale.batch_size,
        is_training=True,
        re_prob=0.25,
        re_mode="pixel",
        auto_augment="rand-m9-mstd0.5",
        interpolation="bicubic",
        num_workers=max(1, min(16, torch.multiprocessing.cpu_count() - 1)) if on_gpu else 0,
        use_prefetcher=on_gpu,
        device=device,
        pin_memory=on_gpu,
    )
    model = timm.create_model(name, num_classes=2, drop_path_rate=0.1).to(device).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.05)
    # The same number type as ours, so that the comparison is of loaders, models and loops.
    precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
    autocast = Numerics(device, precision).autocast
    rate = 0.0
    for _ in range(3):
        start, num = time.perf_counter(), 0
        for images, labels in loader:
            with autocast():
                logits = model(images.to(device))
            loss = F.cross_entropy(logits.float(), labels.to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            num += len(images)
        wait(device)
        rate = num / (time.perf_counter() - start)
    yield f"timm's loop, {name}, {scale.pixels} px, {precision}: images/s", f"{rate:.0f}"


def train_packed(config: TrainConfig, share: float) -> float:
    """Images a second of one training that shares the GPU with others."""
    limit_memory(share)
    trainer = Trainer(config, load_image_data(config.resolved().data))
    *_, last = trainer.epochs()
    return last.images_per_second


def measure_packed(scale: Scale, root: Path, num: int, device: torch.device) -> Iterator[Row]:
    """Images a second, in all, of `num` trainings at a time in processes of their own."""
    config = make_config(scale, root, scale.packed, scale.packed_pixels, device.type)
    num_cpus = torch.multiprocessing.cpu_count()
    workers = max(1, min(16, num_cpus // num - 1)) if device.type == "cuda" else 0
    data = config.data.model_copy(update={"num_workers": workers})
    config = config.model_copy(update={"data": data})
    load_image_data(config.resolved().data)  # decodes once, before time is taken
    with ProcessPoolExecutor(num, get_context("spawn")) as processes:
        tasks = [processes.submit(train_packed, config, 1 / num) for _ in range(num)]
        rates = [task.result(timeout=180) for task in tasks]
    what = f"{scale.packed}, {scale.packed_pixels} px, {num} at a time: images/s in all"
    yield what, f"{sum(rates):.0f}"


def measure_shares(scale: Scale, root: Path, device: torch.device) -> Iterator[Row]:
    """What a search with `gpus_per_trial: auto` finds of each model, alone in its space."""
    sides = {ours: scale.pixels for ours, _ in scale.pairs} | {scale.packed: scale.packed_pixels}
    gpus = 1.0 if device.type == "cuda" else 0.0
    for model, side in sides.items():
        train = make_config(scale, root, model, side, device.type)
        values = {
            "study": {"num_trials": 1},
            "space": {"model.name": {"type": "categorical", "choices": [model]}},
            "train": train.model_dump(),
        }
        few = few_images(read_image_folder(train.data), NUM_IMAGES)
        resources = TrialResources(torch.get_num_threads(), gpus, 1)
        for cost in measured(validate(SearchConfig, values, "benchmark"), few, resources):
            busy = "unknown" if cost.utilization is None else f"{100 * cost.utilization:.0f} %"
            took = f"{cost.memory_bytes / 2**30:.1f} GiB, busy {busy}"
            yield f"{model}, {side} px: share by the probe", f"{share_for(cost):g} ({took})"


def measurements(
    scale: Scale, root: Path, device: torch.device
) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    """Each measurement's name, and a function that measures."""
    for ours, theirs in scale.pairs:
        yield f"{ours}, our trainer", lambda m=ours: measure_ours(scale, root, m, device)
        yield f"{theirs}, timm's loop", lambda m=theirs: measure_timm(scale, root, m, device)
    for num in scale.shares:
        yield (
            f"{num} trainings of {scale.packed} on one GPU",
            lambda n=num: measure_packed(scale, root, n, device),
        )
    yield "shares of the GPU by the probe", lambda: measure_shares(scale, root, device)


def run_tests() -> Iterator[tuple[Row, bool]]:
    """The tests marked gpu: a row for each, and whether it passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q",
                   f"--junit-xml={report}"]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=SECONDS_FOR_TESTS, check=False)
        except subprocess.TimeoutExpired:
            yield ("the tests marked gpu", f"FAILED: longer than {SECONDS_FOR_TESTS} s"), False
            return
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
        for case in cases:
            bad = case.find("failure") is not None or case.find("error") is not None
            said = "FAILED" if bad else "skipped" if case.find("skipped") is not None else "passed"
            yield (f"test: {as_text(case.get('name', '?'))}", said), not bad
        if done.returncode and not cases:
            yield ("the tests marked gpu", f"FAILED: pytest ended with {done.returncode}"), False


def as_text(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def test_names() -> list[str]:
    """The names of the tests marked gpu, without running them."""
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "--collect-only"]
    plain = {**os.environ, "PYTEST_ADDOPTS": ""}  # which may ask for other output
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def print_table(title: str, rows: list[Row]) -> None:
    print(f"\n| {title} | |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value} |")


def skip_everything(scale: Scale) -> None:
    device = torch.device("cpu")
    rows = [(f"test: {as_text(name)}", "skipped") for name in test_names()]
    names = (name for name, _ in measurements(scale, Path(), device))
    rows += [(f"measure: {name}", "skipped") for name in names]
    print_table("no GPU here: on one, this would be done", rows)


def measure_all(scale: Scale, device: torch.device) -> tuple[list[Row], bool]:
    """The rows of all measurements, and whether none of them broke."""
    rows: list[Row] = []
    is_sound = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_photographs(root / "images", scale.num_images, num_val=2 * scale.batch_size)
        for name, measure in measurements(scale, root, device):
            try:
                rows += list(measure())
            except Exception as error:  # noqa: BLE001  the table says so, and the rest goes on
                rows.append((name, f"FAILED: {type(error).__name__}: {error}".splitlines()[0]))
                is_sound = False
            release_memory()
    return rows, is_sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a few tiny images, for a CPU")
    parser.add_argument("--skip-tests", action="store_true", help="measure only")
    parser.add_argument("--num-images", type=int, help="images of an epoch")
    arguments = parser.parse_args()
    scale = TINY if arguments.tiny else Scale()
    if arguments.num_images:
        scale = Scale(**{**vars(scale), "num_images": arguments.num_images})
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        skip_everything(scale)
        return 0
    rows: list[Row] = []
    is_sound = True
    if not arguments.skip_tests and device.type == "cuda":
        for row, passed in run_tests():
            rows.append(row)
            is_sound &= passed
    measured, none_broke = measure_all(scale, device)
    rows += measured
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU, tiny"
    print_table(title, rows)
    return 0 if is_sound and none_broke else 1


if __name__ == "__main__":
    sys.exit(main())
