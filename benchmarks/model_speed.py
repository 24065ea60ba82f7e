"""Speed and memory of SG-Former as ratios ours / peer, from medians of alternating runs.

    python benchmarks/model_speed.py                      # against timm's pvt_v2 of similar size
    python benchmarks/model_speed.py --reference DIR      # and against a copy of the released code

The released code is run, never read: the benchmark loads DIR/sgformer.py under another name and
calls `sgformer_s()`, which builds our b2. Released code can import modules in DIR while it runs.
"""

import argparse
import gc
import importlib.util
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn

import sgformer.model  # noqa: F401  registers the models
from sgformer.catalog import MODEL_NAMES

Build = Callable[[], nn.Module]
PEERS = {"sg_former_b0": "pvt_v2_b0", "sg_former_b2": "pvt_v2_b2"}


@dataclass(frozen=True)
class Mode:
    """A pass to time: forward only or forward and backward, in float32 or bfloat16 autocast."""

    name: str
    backward: bool
    bfloat16: bool


MODES = (
    Mode("forward, float32", backward=False, bfloat16=False),
    Mode("forward + backward, float32", backward=True, bfloat16=False),
    Mode("forward + backward, bf16 autocast", backward=True, bfloat16=True),
)


def run_once(model: nn.Module, images: torch.Tensor, mode: Mode) -> None:
    model.train(mode.backward)
    device = images.device
    autocast = torch.autocast(device.type, torch.bfloat16) if mode.bfloat16 else nullcontext()
    if not mode.backward:
        with torch.inference_mode(), autocast:
            model(images)
        return
    with autocast:
        logits = model(images)
        labels = torch.zeros(len(images), dtype=torch.long, device=device)
        loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    model.zero_grad(set_to_none=True)


def seconds(model: nn.Module, images: torch.Tensor, mode: Mode) -> float:
    synchronise = torch.cuda.synchronize if images.is_cuda else lambda: None
    synchronise()
    start = time.perf_counter()
    run_once(model, images, mode)
    synchronise()
    return time.perf_counter() - start


def medians(
    models: Sequence[nn.Module], images: torch.Tensor, mode: Mode, rounds: int
) -> list[float]:
    """Median seconds of each model's pass over `rounds` rounds, in which the models alternate."""
    for model in models:
        run_once(model, images, mode)
    times = [[seconds(model, images, mode) for model in models] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def load_released(folder: Path) -> Build:
    """A function that builds the S model of the released code in a folder."""
    file = folder / "sgformer.py"
    if not file.is_file():
        raise SystemExit(f"no sgformer.py in {folder}; --reference is a copy of the released code")
    if not hasattr(np, "float"):
        np.float = float  # type: ignore[attr-defined]  # the released code needs NumPy < 1.24
    spec = importlib.util.spec_from_file_location("released_sgformer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # timm's register_model looks up the module here
    with importing_from(folder):
        spec.loader.exec_module(module)

    def build() -> nn.Module:
        with importing_from(folder):
            model: nn.Module = module.sgformer_s()
            return model

    return build


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Lets the code inside the context import modules that lie in a folder.

    Afterwards the folder leaves sys.path: child processes inherit sys.path, and the folder's
    sgformer.py would hide our package from them.
    """
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def builder(name: str, reference: Path | None) -> Build:
    if name == "released" and reference:
        return load_released(reference)
    return lambda: timm.create_model(name)


def peak_bytes(name: str, reference: Path | None, batch: int, backward: bool) -> int:
    """Bytes by which one pass on the CPU raises this process's peak resident memory."""
    torch.manual_seed(0)
    model, images = builder(name, reference)(), torch.randn(batch, 3, 224, 224)
    run_once(model, images[:1], Mode("", backward=backward, bfloat16=False))
    gc.collect()
    with Path("/proc/self/clear_refs").open("w") as file:
        file.write("5")  # resets the peak, VmHWM, to the present resident memory
    status = Path("/proc/self/status")

    def read(field: str) -> int:
        line = next(x for x in status.read_text().splitlines() if x.startswith(field))
        return int(line.split()[1]) * 1024

    before = read("VmRSS")
    run_once(model, images, Mode("", backward=backward, bfloat16=False))
    return read("VmHWM") - before


def in_fresh_process(*arguments: object) -> int:
    """`peak_bytes(*arguments)`, measured in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(peak_bytes, arguments))


def compare(ours: str, peer: str, args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = [builder(name, args.reference)().to(device) for name in (ours, peer)]
    if device.type == "cuda":
        models = [model.to(memory_format=torch.channels_last) for model in models]
    images = torch.randn(args.batch, 3, 224, 224, device=device)
    for mode in MODES:
        a, b = medians(models, images, mode, args.rounds)
        print(f"{ours} / {peer}  {mode.name:34} {a / b:5.2f}   ({a:.3f} s / {b:.3f} s)")
    if device.type == "cpu":
        a, b = (in_fresh_process(name, args.reference, args.batch, True) for name in (ours, peer))
        label = "peak memory, forward + backward"
        print(f"{ours} / {peer}  {label:34} {a / b:5.2f}   ({a >> 20} MiB / {b >> 20} MiB)")


def latency_relative_to_b0(rounds: int) -> None:
    names = [f"sg_former_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b", "b5")]
    images = torch.randn(1, 3, 224, 224)
    times = medians([timm.create_model(n) for n in names], images, MODES[0], rounds)
    for name, value in zip(names, times, strict=True):
        ratio, milliseconds = value / times[0], value * 1e3
        print(f"batch-1 latency against b0  {name:14} {ratio:5.2f}   ({milliseconds:.0f} ms)")


def build_seconds() -> None:
    for name in MODEL_NAMES:
        start = time.perf_counter()
        timm.create_model(name)
        print(f"build  {name:16} {time.perf_counter() - start:5.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="a copy of the released code")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, batch {args.batch}, 224 pixels")
    build_seconds()
    for ours, peer in PEERS.items():
        compare(ours, peer, args)
    if args.reference:
        compare("sg_former_b2", "released", args)
    latency_relative_to_b0(args.rounds)


if __name__ == "__main__":
    main()
