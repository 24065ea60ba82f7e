"""Seconds and memory of an epoch's metrics, for many images and classes.

    python benchmarks/large_data_metrics.py [--batch 256] [--rounds 5] [--threads N]

The clock stands while a batch of logits is written, as a model writes it, and runs for what comes
after the model: top-1, top-5, macro F1 and loss. Each measurement has a process of its own.
Ours is compared with timm's (timm.utils.accuracy and PyTorch's cross-entropy, as in timm's
validation; it has no F1), with scikit-learn's over the whole split, and with the code that ours
replaced. On a machine with a GPU, ours and timm's are measured there too.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sgformer.training.counts import Counts

SIZES = ((50_000, 1_000), (10_000, 10_000))
MEBIBYTE = 2**20

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]


def made_batches(num_images: int, num_classes: int, size: int, device: torch.device) -> Batches:
    """Logits of a model that is right on a part of the images."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for start in range(0, num_images, size):
        rows = min(size, num_images - start)
        labels = torch.randint(num_classes, (rows,), generator=generator)
        logits = torch.randn(rows, num_classes, generator=generator)
        logits[torch.arange(rows), labels] += 3
        batches.append((logits.to(device), labels.to(device)))
    return batches


class Clock:
    """Seconds that passed, and that a CPU worked, while it was on."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def written(self, batches: Batches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches, each written to the same memory with the clock off."""
        logits = torch.empty_like(batches[0][0])
        for batch, labels in batches:
            current = logits[: len(batch)].copy_(batch)
            on, cpu_on = time.perf_counter(), time.process_time()
            yield current, labels
            if current.is_cuda:
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - on
            self.cpu_seconds += time.process_time() - cpu_on


def ours(batches: Batches, clock: Clock) -> tuple[float, ...]:
    logits = batches[0][0]
    counts = Counts(logits.shape[1], logits.device)
    for batch in clock.written(batches):
        counts.add(*batch)
    scores = counts.scores()
    return scores.top1, scores.top5, scores.macro_f1, scores.loss


def timms(batches: Batches, clock: Clock) -> tuple[float, ...]:
    from timm.utils import AverageMeter, accuracy

    meters = [AverageMeter() for _ in range(3)]
    for logits, labels in clock.written(batches):
        top1, top5 = accuracy(logits, labels, topk=(1, 5))
        loss = F.cross_entropy(logits, labels)
        for meter, value in zip(meters, (top1, top5, loss), strict=True):
            meter.update(value.item(), len(labels))
    return meters[0].avg / 100, meters[1].avg / 100, float("nan"), meters[2].avg


def joined(batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    logits = torch.cat([logits for logits, _ in batches]).numpy()
    return logits, torch.cat([labels for _, labels in batches]).numpy()


def scikit_learns(batches: Batches, _: Clock) -> tuple[float, ...]:
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

    logits, labels = joined(batches)
    indices = np.arange(logits.shape[1])
    predicted = logits.argmax(1)
    return (
        accuracy_score(labels, predicted),
        top_k_accuracy_score(labels, logits, k=5, labels=indices),
        f1_score(labels, predicted, labels=indices, average="macro", zero_division=0),
        log_loss(labels, softmax(logits.astype(np.float64), axis=1), labels=indices),
    )


def former(batches: Batches, _: Clock) -> tuple[float, ...]:
    """The code before: a full sort, a matrix of classes x classes, logits again in float64."""
    logits, labels = joined(batches)
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    f1 = 2 * confusion.diagonal() / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    top5 = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    loss = F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels).long())
    confusion.tolist()
    return (
        float((predicted == labels).mean()),
        float((top5 == labels[:, None]).any(1).mean()),
        float(f1.mean()),
        float(loss),
    )


WAYS: dict[str, Callable[[Batches, Clock], tuple[float, ...]]] = {
    "ours": ours,
    "timm": timms,
    "scikit-learn": scikit_learns,
    "former": former,
}
ON_GPU = ("ours", "timm")


class PeakMemory:
    """Bytes of memory taken since it was made, at the most."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # Linux forgets the former peak
            self._before = self._status("VmRSS")

    def bytes(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated() - self._before
        return self._status("VmHWM") - self._before

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(f"{name}:"))


def measure(way: str, num_images: int, num_classes: int, args: argparse.Namespace) -> str:
    """Runs in a process of its own; returns a row of the table."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    batches = made_batches(num_images, num_classes, args.batch, device)
    compute, seconds, cpu_seconds, most = WAYS[way], [], [], 0
    compute(batches[:1], Clock())  # imports, and a GPU's kernels
    values: tuple[float, ...] = ()
    for _ in range(args.rounds):
        memory, clock = PeakMemory(device), Clock()
        start, cpu_start = time.perf_counter(), time.process_time()
        values = compute(batches, clock)
        # scikit-learn and the former code take the split as a whole, so their clock never ran.
        seconds.append(clock.seconds or time.perf_counter() - start)
        cpu_seconds.append(clock.cpu_seconds or time.process_time() - cpu_start)
        most = max(most, memory.bytes())
    texts = " | ".join(f"{value:.6f}" for value in values)
    return (
        f"| {num_images:,} x {num_classes:,} | {way} | {device.type} | "
        f"{min(seconds):.3f} | {min(cpu_seconds):.3f} | "
        f"{most / MEBIBYTE:.0f} | {texts} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        way, num_images, num_classes = args.one
        print(measure(way, int(num_images), int(num_classes), args))
        return
    print(f"{args.threads} threads, batches of {args.batch}, best of {args.rounds} rounds\n")
    head = "seconds | CPU seconds | MiB | top-1 | top-5 | macro F1 | loss |"
    print(f"| images x classes | by | on | {head}")
    print(10 * "|---" + "|", flush=True)
    on_gpu = [way for way in args.ways if way in ON_GPU] if torch.cuda.is_available() else []
    places = [(way, "cpu") for way in args.ways] + [(way, "cuda") for way in on_gpu]
    for num_images, num_classes in SIZES:
        for way, device in places:
            command = [
                sys.executable, __file__, "--one", way, str(num_images), str(num_classes),
                "--batch", str(args.batch), "--rounds", str(args.rounds),
                "--threads", str(args.threads), "--device", device,
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
