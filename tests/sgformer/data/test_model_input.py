import pytest
import torch

from sgformer.catalog import Preprocessing
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data.loader import Batch
from sgformer.data.model_input import ModelInput, eval_batches
from sgformer.errors import DataError

LOOK = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
CPU = torch.device("cpu")


def batch_of(images: torch.Tensor, patches: list[list[int]] | None = None) -> Batch:
    size = len(images)
    labels = torch.zeros(size, dtype=torch.long)
    return Batch(images, labels, torch.tensor(patches or [[0] * 5] * size))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bytes_become_normalised_floats_in_the_models_layout(layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 6), dtype=torch.uint8)
    out = ModelInput(LOOK, CPU, layout)(batch_of(images))
    mean, std = (torch.tensor(rgb).view(3, 1, 1) for rgb in (LOOK.mean, LOOK.std))
    torch.testing.assert_close(out, (images / 255 - mean) / std)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=layout)


def test_patches_are_erased_after_the_normalisation() -> None:
    images = torch.zeros(2, 3, 40, 40, dtype=torch.uint8)
    out = ModelInput(LOOK)(batch_of(images, [[0, 0, 0, 0, 0], [5, 10, 30, 20, 7]]))
    plain = ModelInput(LOOK)(batch_of(images))
    assert torch.equal(out[0], plain[0])
    changed = (out[1] != plain[1]).all(0)
    assert changed[5:35, 10:30].all()
    assert changed.sum() == 30 * 20
    noise = out[1, :, 5:35, 10:30]
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)


def test_a_splits_batches_come_in_order(train_config: TrainConfig) -> None:
    data = load_image_data(train_config.data)
    batches = list(eval_batches(data, data.samples("val"), train_config.data, 7))
    assert torch.cat([labels for _, labels in batches]).tolist() == [
        digit for digit in range(10) for _ in range(3)
    ]
    with pytest.raises(DataError, match="no split 'extra'"):
        data.samples("extra")
