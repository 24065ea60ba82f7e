"""Tests of images on their way to a GPU."""

import pytest
import torch

from sgformer.config import AugmentationConfig, TrainConfig
from sgformer.data.augmentation import erasing_prob, eval_transform, train_transform
from sgformer.data.image_data import ImageData
from sgformer.data.loader import BatchLoader, ImageDataset
from sgformer.data.model_input import ModelInput
from sgformer.data.plans import TrainPlan

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")


def test_images_are_pinned_as_bytes_and_normalised_on_the_gpu(
    train_config: TrainConfig, data: ImageData
) -> None:
    config, guide = train_config.data, AugmentationConfig()
    dataset = ImageDataset(
        data.images, eval_transform(config), train_transform(config, guide), erasing_prob(guide)
    )
    loader = BatchLoader(dataset, num_workers=2, pin_memory=True)
    on_cpu = ModelInput(config.preprocessing)
    for layout in (torch.contiguous_format, torch.channels_last):
        on_gpu = ModelInput(config.preprocessing, GPU, layout)
        for batch in loader.batches(TrainPlan(data.samples("train"), 20, seed=1)):
            assert batch.images.dtype == torch.uint8
            assert batch.images.is_pinned()
            images = on_gpu(batch)
            assert images.is_cuda
            assert images.is_contiguous(memory_format=layout)
            assert torch.equal(images, on_gpu(batch))  # the noise, too
            expected = on_cpu.normalised(batch.images)
            plain = on_gpu.normalised(batch.images).cpu()
            torch.testing.assert_close(plain, expected)
            is_erased = (images.cpu() - expected).abs().amax((1, 2, 3)) > 1e-3
            assert is_erased.tolist() == (batch.patches[:, 2] > 0).tolist()
