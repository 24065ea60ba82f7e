"""Tests of the share of a GPU that a few steps of a training ask for."""

from collections.abc import Callable

import pytest
import torch

from hpo.config.schema import SearchConfig
from hpo.execution.cluster import TrialResources
from hpo.execution.gpu_share import share_for
from hpo.execution.profile import NUM_IMAGES, Cost, measured
from sgformer.config import TrainConfig
from sgformer.data.few_images import few_images
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.training.device import CONTEXT_BYTES, limit_memory, release_memory
from sgformer.training.trainer import Trainer
from sgformer.validation import validate

pytestmark = pytest.mark.gpu
Configure = Callable[..., TrainConfig]
WHOLE = TrialResources(cpus=2, gpus=1.0, num_slots=1)
LARGE = {"data": {"image_size": 224}, "optimizer": {"batch_size": 60}, "precision": "float32"}


def cost_of(train: TrainConfig) -> Cost:
    values = {
        "study": {"num_trials": 1},
        "space": {"label_smoothing": {"type": "float", "low": 0.0, "high": 0.2}},
        "train": train.model_dump(),
    }
    few = few_images(read_image_folder(train.data), NUM_IMAGES)
    (cost,) = measured(validate(SearchConfig, values, "test"), few, WHOLE)
    release_memory()
    return cost


def test_a_small_training_needs_little_and_a_larger_one_more(configure: Configure) -> None:
    small, large = cost_of(configure()), cost_of(configure(**LARGE))
    size = torch.cuda.get_device_properties(0).total_memory
    for cost in (small, large):
        assert cost.gpu_bytes == size
        assert cost.device.startswith("cuda of ")
        assert CONTEXT_BYTES < cost.memory_bytes < size
        assert cost.epoch_seconds > 0
        assert share_for(cost) > 0
    assert large.memory_bytes > small.memory_bytes


def test_a_training_fits_into_the_share_that_it_was_given(configure: Configure) -> None:
    config = configure(**LARGE, max_epochs=1)
    cost = cost_of(config)
    limit_memory(share_for(cost))
    trainer = Trainer(config, load_image_data(config.data))
    assert [metrics.epoch for metrics in trainer.epochs()] == [1]
    assert trainer.micro_batches.size == cost.micro_batch_size == 60


def test_a_training_of_a_whole_gpu_is_not_limited_afterwards(configure: Configure) -> None:
    cost_of(configure())
    assert torch.cuda.get_per_process_memory_fraction() == 1.0
