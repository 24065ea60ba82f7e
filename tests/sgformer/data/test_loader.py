import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from sgformer.config import AugmentationConfig, TrainConfig
from sgformer.data.augmentation import erasing_prob, eval_transform, train_transform
from sgformer.data.image_data import load_image_data
from sgformer.data.loader import BatchLoader, Example, ImageDataset, default_num_workers
from sgformer.data.plans import Draw, EvalPlan, TrainPlan, share_sizes
from sgformer.errors import DataError

SAMPLES = np.stack([np.arange(20), np.repeat([0, 1, 1, 1], 5)], axis=1)  # classes of 5 and 15


@pytest.fixture
def dataset(train_config: TrainConfig) -> ImageDataset:
    data = load_image_data(train_config.data)
    training = train_transform(train_config.data, train_config.augmentation)
    return ImageDataset(data.images, eval_transform(train_config.data), training)


def positions(plan: TrainPlan | EvalPlan) -> list[list[int]]:
    return [[draw.position for draw in batch] for batch in plan]


def test_a_draw_is_an_image_in_bytes_its_label_and_its_position(dataset: ImageDataset) -> None:
    image, label, patch, position = dataset[Draw(59, 9, None)]
    assert (image.shape, image.dtype, label, position) == ((3, 32, 32), torch.uint8, 9, 59)
    assert patch.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_patches_depend_on_the_images_seeds_only(
    train_config: TrainConfig, num_workers: int
) -> None:
    data = load_image_data(train_config.data)
    evaluation = eval_transform(train_config.data)
    guide = AugmentationConfig()
    training = train_transform(train_config.data, guide)
    dataset = ImageDataset(data.images, evaluation, training, erasing_prob(guide))
    plan = TrainPlan(data.samples("train"), 20, seed=3)
    alone = [dataset[draw][2].tolist() for draws in plan for draw in draws]
    loader = BatchLoader(dataset, num_workers)
    batches = list(loader.batches(plan))
    assert torch.cat([batch.patches for batch in batches]).tolist() == alone
    assert 3 < sum(height > 0 for _, _, height, _, _ in alone) < 30  # a quarter of 60


def test_an_evaluation_erases_nothing(train_config: TrainConfig) -> None:
    data = load_image_data(train_config.data)
    evaluation = eval_transform(train_config.data)
    dataset = ImageDataset(data.images, evaluation, evaluation, 1.0)
    (batch,) = BatchLoader(dataset).batches(EvalPlan(data.samples("val"), 30))
    assert not batch.patches.any()


def test_a_seed_fixes_the_augmentation(dataset: ImageDataset) -> None:
    first, again, other, none = (dataset[Draw(0, 0, seed)][0] for seed in (1, 1, 2, None))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, none)


def test_evaluation_takes_every_image_in_order() -> None:
    assert positions(EvalPlan(SAMPLES, 8)) == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]
    assert all(draw.seed is None for batch in EvalPlan(SAMPLES, 8) for draw in batch)


def test_processes_share_an_evaluation_in_turn() -> None:
    shares = [positions(EvalPlan(SAMPLES, 8, rank, 3)) for rank in range(3)]
    assert shares[1] == [[1, 4, 7, 10, 13, 16, 19]]
    assert sorted(p for share in shares for batch in share for p in batch) == list(range(20))


def test_training_shuffles_by_seed_and_drops_the_last_partial_batch() -> None:
    plan = TrainPlan(SAMPLES, 8, seed=1)
    batches = positions(plan)
    assert [len(batch) for batch in batches] == [8, 8]
    assert len(plan) == 2
    assert batches == positions(TrainPlan(SAMPLES, 8, seed=1))
    assert batches != positions(TrainPlan(SAMPLES, 8, seed=2))
    assert len({draw.seed for batch in plan for draw in batch}) == 16


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert sorted(positions(TrainPlan(SAMPLES, 64, seed=1))[0]) == list(range(20))


@pytest.mark.parametrize("batch_size", [8, 7])
@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_each_batch_in_pairs(batch_size: int, num_processes: int) -> None:
    whole = list(TrainPlan(SAMPLES, batch_size, seed=3))
    shares = [
        list(TrainPlan(SAMPLES, batch_size, seed=3, rank=r, num_processes=num_processes))
        for r in range(num_processes)
    ]
    for i, batch in enumerate(whole):
        parts = [share[i] for share in shares]
        assert sorted(draw for part in parts for draw in part) == sorted(batch)
        partner = dict(zip(batch, reversed(batch), strict=True))
        for part in parts:
            # Reversing a part pairs the same images as reversing the whole batch.
            assert [partner[draw] for draw in part] == list(reversed(part))


def test_balanced_draws_show_every_class_as_often() -> None:
    counts: Counter[int] = Counter()
    for seed in range(100):
        for batch in TrainPlan(SAMPLES, 20, seed, balanced=True):
            counts.update(draw.label for draw in batch)
    assert counts[0] / sum(counts.values()) == pytest.approx(0.5, abs=0.05)


def test_batches_do_not_depend_on_who_loads_them(dataset: ImageDataset) -> None:
    samples = np.stack([np.arange(24), np.zeros(24, dtype=int)], axis=1)
    alone, helped = BatchLoader(dataset), BatchLoader(dataset, num_workers=2)
    for seed in (1, 2):  # the processes live on from plan to plan
        plan = TrainPlan(samples, 8, seed)
        for batch, other in zip(alone.batches(plan), helped.batches(plan), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_a_plan_left_half_way_does_not_disturb_the_next(dataset: ImageDataset) -> None:
    samples = np.stack([np.arange(40), np.arange(40)], axis=1)
    loader = BatchLoader(dataset, num_workers=1)
    next(loader.batches(TrainPlan(samples, 4, seed=0)))
    labels = torch.cat([batch.labels for batch in loader.batches(EvalPlan(samples, 8))])
    assert labels.tolist() == list(range(40))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_is_gone_is_named_in_one_line(
    train_config: TrainConfig, own_image_folder: Path, tmp_path: Path, num_workers: int
) -> None:
    update = {"data_dir": own_image_folder, "cache_dir": tmp_path, "cache_bytes": 0}
    config = train_config.data.model_copy(update=update)
    data = load_image_data(config)
    (own_image_folder / "val" / "0" / "6.png").unlink()
    loader = BatchLoader(ImageDataset(data.images, eval_transform(config)), num_workers)
    plan = EvalPlan(data.samples("val"), 8)
    with pytest.raises(DataError, match=r"^image could be read before .*/val/0/6\.png$"):
        list(loader.batches(plan))


# Run where /dev/shm has 2 MiB, of which a batch takes 0.75 MiB.
IN_LITTLE_MEMORY = """
import sys
import numpy as np
import torch
from sgformer.config import TrainConfig
from sgformer.data import loader as module
from sgformer.data.augmentation import eval_transform
from sgformer.data.image_data import load_image_data
from sgformer.data.plans import EvalPlan

torch.set_num_threads(1)
config = TrainConfig.model_validate_json(sys.argv[1]).data
data = load_image_data(config)
dataset = module.ImageDataset(data.images, eval_transform(config))
plan = EvalPlan(np.repeat(data.samples("val"), 4, axis=0), 16)
alone = list(module.BatchLoader(dataset).batches(plan))
for free in (module.free_shared_memory, lambda: None):  # it is foreseen; it runs out
    module.free_shared_memory = free
    loader = module.BatchLoader(dataset, 2, batch_bytes=16 * 3 * 128**2)
    batches = list(loader.batches(plan))
    assert len(batches) == len(alone) == 8
    assert all(torch.equal(a, b) for x, y in zip(batches, alone) for a, b in zip(x, y))
    print(loader.note)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_little_shared_memory_is_fitted_to_or_noticed_when_it_runs_out(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    data = train_config.data.model_copy(update={"image_size": 128, "cache_dir": tmp_path})
    config = train_config.model_copy(update={"data": data})
    mount = 'mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "-", sys.executable, "-c", IN_LITTLE_MEMORY]
    done = subprocess.run(
        [*command, config.model_dump_json()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    notes = done.stdout.strip().splitlines()
    assert len(notes) == 2
    assert all(note.startswith("/dev/shm has") and "--shm-size" in note for note in notes)


class WithoutSharedMemory(ImageDataset):
    """Images that a loading process finds no shared memory for, from the third batch on."""

    def __getitem__(self, draw: Draw) -> Example:
        if torch.utils.data.get_worker_info() is not None and draw.position >= 16:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")
        return super().__getitem__(draw)


def test_the_batches_that_are_left_when_shared_memory_runs_out_are_loaded_otherwise(
    train_config: TrainConfig,
) -> None:
    data = load_image_data(train_config.data)
    evaluation = eval_transform(train_config.data)
    plan = EvalPlan(np.stack([np.arange(40), np.arange(40)], axis=1), 8)
    loader = BatchLoader(WithoutSharedMemory(data.images, evaluation), 1)
    alone = BatchLoader(ImageDataset(data.images, evaluation))
    for batch, other in zip(loader.batches(plan), alone.batches(plan), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
    assert "the training process itself loads the images" in (loader.note or "")


@pytest.mark.parametrize(
    ("batch_size", "num_processes", "expected"),
    [(64, 1, [64]), (64, 4, [16] * 4), (7, 2, [4, 3]), (9, 4, [2, 2, 2, 3]), (8, 4, [2] * 4)],
)
def test_a_batch_is_shared_in_pairs(
    batch_size: int, num_processes: int, expected: list[int]
) -> None:
    assert share_sizes(batch_size, num_processes) == expected


@pytest.mark.parametrize(
    ("num_cpus", "has_gpu", "expected"),
    [(1, False, 0), (2, False, 1), (8, False, 1), (1, True, 1), (8, True, 7), (64, True, 16)],
)
def test_loading_processes_by_default(num_cpus: int, has_gpu: bool, expected: int) -> None:
    assert default_num_workers(num_cpus, has_gpu=has_gpu) == expected
