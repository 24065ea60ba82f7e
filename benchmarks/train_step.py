"""Share of an epoch that is not spent in the model, and host memory of a training.

    python benchmarks/train_step.py [--model sg_former_nano] [--image-size 64] [--batch-size 64]

Prints, for several numbers of torch threads and loading processes, the share of an epoch that is
not spent in forward, backward, optimizer step or validation's forward: the mean of the second and
third of three epochs. Then prints by how many MiB the peak of anonymous memory (PSS of the process
and its loading processes, sampled) exceeds the memory in use before the trainer was made and the
size of weights, gradients and AdamW's moments. The batch's activations are nearly all of this
excess, so a batch of two images shows how much everything else needs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from input_pipeline import write_photographs

SETTINGS = ((2, 1), (1, 1), (2, 0), (1, 0))


def anonymous_bytes(pid: int) -> int:
    """Bytes of anonymous memory of a process and its descendants, without mapped files."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    fields = {line.split()[0].rstrip(":"): int(line.split()[1]) for line in lines}
    own = 1024 * (fields["Pss_Anon"] + fields["Pss_Shmem"])
    return own + sum(anonymous_bytes(int(child)) for child in children)


class Timed:
    """Wraps a function and adds up the seconds of its calls."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start


def measure(root: Path, arguments: argparse.Namespace, num_threads: int, num_workers: int) -> None:
    import torch

    from sgformer.config import TrainConfig
    from sgformer.data.image_data import load_image_data
    from sgformer.optimization.optimizer_step import OptimizerStep
    from sgformer.training.trainer import Trainer
    from sgformer.validation import validate

    torch.set_num_threads(num_threads)
    values = {
        "model": {"name": arguments.model},
        "data": {
            "data_dir": root / "images",
            "image_size": arguments.image_size,
            "num_workers": num_workers,
            "cache_dir": root / "cache",
        },
        "optimizer": {"batch_size": arguments.batch_size, "warmup_epochs": 0},
        "max_epochs": 3,
        "early_stopping": {"patience": None},
    }
    config = validate(TrainConfig, values, "benchmark").resolved()
    data = load_image_data(config.data)
    before, highest = anonymous_bytes(os.getpid()), 0
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.05):
            highest = max(highest, anonymous_bytes(os.getpid()))

    watcher = threading.Thread(target=watch)
    if arguments.memory:
        watcher.start()
    steps = Timed(OptimizerStep.run)
    OptimizerStep.run = lambda *a, **k: steps(*a, **k)  # type: ignore[method-assign]
    trainer, shares = Trainer(config, data), []
    model = type(trainer.model)
    forward = model.forward
    forwards = Timed(forward)  # validation's forward passes; `steps` includes training's
    model.forward = lambda *a, **k: (forward if a[0].training else forwards)(*a, **k)  # type: ignore[method-assign]
    for metrics in trainer.epochs():
        inside = steps.seconds + forwards.seconds
        steps.seconds = forwards.seconds = 0.0
        shares.append(1 - inside / metrics.seconds)
    done.set()
    if arguments.memory:
        watcher.join()
        size = 16 * trainer.num_parameters  # bytes of weights, gradients, AdamW's two moments
        print(
            f"batch {arguments.batch_size}, {num_workers} loading processes: "
            f"{(highest - before - size) / 2**20:.0f} MiB beyond the model's "
            f"{size / 2**20:.0f}"
        )
    else:
        print(
            f"{num_threads} torch threads, {num_workers} loading processes: "
            f"{100 * statistics.mean(shares[1:]):.1f} % outside the steps; "
            f"{statistics.mean(m.images_per_second for m in trainer.history[1:]):.0f} images/s; "
            f"waiting for images {trainer.history[-1].data_seconds:.2f} of "
            f"{trainer.history[-1].seconds:.2f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sg_former_nano")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:  # this process measures one setting; see below
        root, num_threads, num_workers = arguments.one
        measure(Path(root), arguments, int(num_threads), int(num_workers))
        return
    print(
        f"{len(os.sched_getaffinity(0))} cores, {arguments.model} at {arguments.image_size} px, "
        f"batch {arguments.batch_size}, the guide's augmentation"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder, "images"), arguments.num_images, num_val=400)
        for setting in SETTINGS:
            again = [sys.executable, *sys.argv, "--one", folder, *map(str, setting)]
            subprocess.run(again, check=True)
        for batch_size in (arguments.batch_size, 2):
            options = ["--batch-size", str(batch_size), "--memory", "--one", folder, "1", "1"]
            subprocess.run([sys.executable, *sys.argv, *options], check=True)


if __name__ == "__main__":
    main()
