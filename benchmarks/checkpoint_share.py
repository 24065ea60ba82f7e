"""What checkpoints and virtual epochs cost of a slot's time.

    python benchmarks/checkpoint_share.py [--folder .] [--epoch-seconds 60]

First, for sg_former_b0 and _b5 with AdamW's state (real sizes; a GPU's copies to the CPU are not
measured): the seconds for which the checkpoint of a best epoch stops the training, and their share
of an epoch. `before` is what this program did earlier: a copy for running out of memory, then both
files written in the training's thread, with two syncs each. `now` is one copy. For how long the
writing thread keeps the training's from running shows in missed beats of a millisecond, beside
those while another process writes the same, which shares cores and disk but no lock of Python. The
files lie in --folder, so that a network disk can be measured.

Then, for sg_former_nano at 64 pixels, trainings of the same images in whole epochs and in virtual
ones of an eighth, in turn: what each further epoch takes, in CPU seconds of the process and on the
clock, outside validation, whose cost is bounded by `eval_images`.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from input_pipeline import write_photographs

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.training.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    CheckpointWriter,
    Saving,
    save_checkpoint,
    save_progress,
)
from sgformer.training.trainer import Trainer
from sgformer.validation import validate

BEAT, MOST = 0.001, 0.005  # a beat that comes later than MOST seconds was missed
PIECES = 8


def config_for(root: Path, model: str, num_images: int, **others: Any) -> TrainConfig:
    values = {
        "model": {"name": model},
        "data": {
            "data_dir": root / "images", "image_size": 64, "cache_dir": root / "cache",
            "num_workers": others.pop("num_workers", 0),
        },
        "augmentation": {"policy": "mild"},
        "optimizer": {"batch_size": others.pop("batch_size", 4), "warmup_epochs": 0},
        "early_stopping": {"patience": None},
        "eval_images": num_images,
        "device": "cpu",
    }  # fmt: skip
    return validate(TrainConfig, values | others, "benchmark").resolved()


def missed_seconds(is_over: Callable[[], bool]) -> float:
    """Seconds for which this thread could not run until something was over."""
    missed, last = 0.0, time.perf_counter()
    while not is_over():
        time.sleep(BEAT)
        now = time.perf_counter()
        missed += now - last - BEAT if now - last > MOST else 0.0
        last = now
    return missed


def measure_checkpoint(
    model: str, root: Path, data: ImageData, folder: Path, epoch_seconds: float
) -> None:
    trainer = Trainer(config_for(root, model, 2, epoch_images=4), data)
    next(trainer.epochs())
    before, now, rows = [], [], []
    for _ in range(4):
        start = time.perf_counter()
        copies = trainer._step.snapshot()
        save_checkpoint(folder / BEST, trainer.model.state_dict(), trainer.description())
        save_checkpoint(folder / LAST, *trainer.state_dict(), keep_as=folder / PREVIOUS)
        before.append(time.perf_counter() - start)
        del copies
        writer = CheckpointWriter(folder)
        trainer._spare, trainer._before = (trainer._before or ({},))[0], None
        start, cpu = time.perf_counter(), time.thread_time()
        writer.begin(trainer)
        stopped, cpu = time.perf_counter() - start, time.thread_time() - cpu
        missed = missed_seconds(lambda writer=writer: writer.is_done)
        write = time.perf_counter() - start - stopped
        writer.close()
        saving = Saving.of(trainer)
        process = multiprocessing.get_context("fork").Process(target=saving.write, args=(folder,))
        process.start()
        apart = missed_seconds(lambda process=process: not process.is_alive())
        rows.append((cpu, write, missed, apart))
        now.append(stopped)
    size = sum((folder / name).stat().st_size for name in (BEST, LAST))
    for path in folder.glob("*.safetensors"):
        path.unlink()
    old, new = statistics.median(before), statistics.median(now)
    cpu, write, missed, apart = (statistics.median(values) for values in zip(*rows, strict=True))
    print(
        f"{model}: {size / 1e6:.0f} MB; before {old:.2f} s ({100 * old / epoch_seconds:.2f} % of "
        f"{epoch_seconds:g} s), now {new:.2f} s ({100 * new / epoch_seconds:.2f} %), of it "
        f"{cpu:.2f} s of a CPU; then {write:.2f} s of the writing thread, in which "
        f"{missed:.2f} s of beats were missed, and {apart:.2f} s while a process wrote"
    )


def cost(root: Path, data: ImageData, pieces: int, **options: int) -> tuple[float, float]:
    """CPU seconds and seconds of a training on two passes, without validation."""
    num_train = len(data.samples("train"))
    images = num_train // pieces if pieces > 1 else None
    config = config_for(
        root, "sg_former_nano", 2, batch_size=25, epoch_images=images, max_epochs=2 * pieces,
        **options,
    )  # fmt: skip
    trainer = Trainer(config, data)
    validate_once = trainer._scores
    spent = [0.0, 0.0]

    def timed(samples: Any) -> Any:
        cpu, clock = time.process_time(), time.perf_counter()
        result = yield from validate_once(samples)
        spent[0] += time.process_time() - cpu
        spent[1] += time.perf_counter() - clock
        return result

    trainer._scores = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        cpu, clock = time.process_time(), time.perf_counter()
        for _ in trainer.epochs():
            save_progress(trainer, Path(folder))
        whole = time.process_time() - cpu, time.perf_counter() - clock
    return whole[0] - spent[0], whole[1] - spent[1]


def measure_virtual_epochs(root: Path, data: ImageData, rounds: int, epoch_seconds: float) -> None:
    for num_workers in (0, 1):
        shares = []
        for _ in range(rounds):
            whole = cost(root, data, 1, num_workers=num_workers)
            cut = cost(root, data, PIECES, num_workers=num_workers)
            num_further = 2 * PIECES - 2  # of two passes
            shares.append([(b - a) / num_further for a, b in zip(whole, cut, strict=True)])
        cpu, clock = (statistics.median(values) for values in zip(*shares, strict=True))
        print(
            f"a further epoch, {num_workers} loading processes: {cpu:+.3f} s of a CPU, "
            f"{clock:+.3f} s on the clock ({100 * clock / epoch_seconds:+.2f} % of "
            f"{epoch_seconds:g} s; median of {rounds})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--epoch-seconds", type=float, default=60.0)
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["sg_former_b0", "sg_former_b5"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
    ):
        root = Path(scratch)
        write_photographs(root / "images", arguments.num_images, num_val=40)
        data = load_image_data(config_for(root, "sg_former_nano", 2).data)
        for model in arguments.models:
            measure_checkpoint(model, root, data, Path(folder), arguments.epoch_seconds)
        measure_virtual_epochs(root, data, arguments.rounds, arguments.epoch_seconds)


if __name__ == "__main__":
    main()
