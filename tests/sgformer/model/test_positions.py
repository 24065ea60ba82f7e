import pytest
import timm
import torch

from sgformer.errors import ConfigError
from sgformer.model.positions import sine_cosine_table
from sgformer.model.sg_former import SGFormer


def pico(img_size: int | tuple[int, int]) -> SGFormer:
    model = timm.create_model("sg_former_pico", num_classes=3, img_size=img_size)
    assert isinstance(model, SGFormer)
    return model


def test_the_table_tells_columns_by_its_first_half_and_rows_by_its_second() -> None:
    table = sine_cosine_table((3, 5), 8).unflatten(1, (3, 5))[0]
    assert table.shape == (3, 5, 8)
    assert torch.equal(table[0, :, :4], table[2, :, :4])
    assert torch.equal(table[:, 0, 4:], table[:, 4, 4:])
    assert len(table.flatten(0, 1).unique(dim=0)) == 15


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100, 96), "image size 100x96: .* multiple of 32 pixels; nearest to 100: 96 and 128$"),
        ((96, 33), "image size 96x33: .* multiple of 32 pixels; nearest to 33: 32 and 64$"),
        ((16, 32), "image size 16x32: .* multiple of 32 pixels; nearest to 16: 32 and 64$"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest_named(
    size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pico(32)(torch.randn(1, 3, *size))


def test_a_table_of_another_size_is_resampled_when_loaded() -> None:
    model, other = pico(224), pico((64, 96))
    other.load_state_dict(model.state_dict())
    assert other.pos_embed.shape == (1, 16 * 24, 12)
    with torch.inference_mode():
        images = torch.randn(1, 3, 64, 96)
        torch.testing.assert_close(other.eval()(images), model.eval()(images))


@pytest.mark.parametrize("shape", [(1, 15, 12), (1, 64, 16)])
def test_a_table_that_is_no_square_or_has_other_channels_is_refused(shape: tuple) -> None:
    weights = pico(32).state_dict() | {"pos_embed": torch.zeros(shape)}
    with pytest.raises(RuntimeError, match="size mismatch for pos_embed"):
        pico(64).load_state_dict(weights)
