"""Tests of a GPU's memory: running out of it, sharing it, and giving it back."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from hpo.execution.training import Training
from hpo.execution.worker import (
    REPORT,
    SETTINGS,
    UNDER_WAY,
    TrialTask,
    TrialWorker,
    WorkerSettings,
    trial_folder,
)
from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data
from sgformer.errors import OutOfMemoryError
from sgformer.training.device import limit_memory, release_memory
from sgformer.training.trainer import Trainer

pytestmark = pytest.mark.gpu
Configure = Callable[..., TrainConfig]
LARGE = {"data": {"image_size": 224}, "optimizer": {"batch_size": 60}, "precision": "float32"}


def cap(num_bytes: float) -> None:
    size = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(num_bytes / size)


def train(config: TrainConfig) -> tuple[list[float], int]:
    """The training's losses, and its last micro-batch."""
    trainer = Trainer(config, load_image_data(config.data))
    losses = [m.train_loss for m in trainer.epochs()]
    return losses, trainer.micro_batches.size


def peak_reserved(config: TrainConfig) -> int:
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    train(config)
    peak = torch.cuda.max_memory_reserved()
    release_memory()
    return peak


def test_memory_that_really_runs_out_halves_the_micro_batch(configure: Configure) -> None:
    config = configure(**LARGE, max_epochs=2)
    peak = peak_reserved(config)
    expected, whole = train(config)
    release_memory()
    cap(0.7 * peak)
    losses, micro_batch = train(config)
    assert micro_batch < whole
    assert losses == pytest.approx(expected, rel=0.01)


def test_when_not_one_image_fits_a_gpu_it_says_so(configure: Configure) -> None:
    config = configure(**LARGE, max_epochs=1, model={"name": "sg_former_b0"})
    trainer = Trainer(config, load_image_data(config.data))
    cap(torch.cuda.memory_reserved())
    with pytest.raises(OutOfMemoryError, match="not even one image at a time fits"):
        next(trainer.epochs())


def test_twenty_trials_in_a_process_leave_no_memory_behind(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure(max_epochs=1)
    worker = TrialWorker({SETTINGS: WorkerSettings(1, config.data)})
    held = []
    for number in range(20):
        seeded = config.model_copy(update={"seed": number})
        worker.assign(TrialTask(number, Training(seeded, trial_folder(tmp_path, number))))
        while (result := worker.step()).get(UNDER_WAY):  # within the epoch
            pass
        assert result[REPORT].end_reason == "completed"
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert held[-1][0] <= held[1][0] + 2**20
    assert held[-1][1] <= held[1][1] + 2**24


def train_on_a_share(config: TrainConfig, share: float) -> tuple[list[float], int, bool]:
    limit_memory(share)
    size = torch.cuda.get_device_properties(0).total_memory
    losses, micro_batch = train(config)
    return losses, micro_batch, torch.cuda.max_memory_reserved() <= share * size


def test_two_trials_share_a_gpu(configure: Configure) -> None:
    config = configure(precision="float32")
    expected, _ = train(config)
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        tasks = [processes.submit(train_on_a_share, config, 0.5) for _ in range(2)]
        results = [task.result(timeout=240) for task in tasks]
    for losses, _, is_within in results:
        assert losses == pytest.approx(expected, rel=0.02)
        assert is_within


def test_a_share_caps_what_a_process_takes(data: ImageData) -> None:
    limit_memory(0.1)
    size = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.11 * size), dtype=torch.uint8, device="cuda")
    limit_memory(1.0)
    torch.empty(int(0.11 * size), dtype=torch.uint8, device="cuda")
