import numpy as np
import pytest

from sgformer.images.pixel_rules import PixelRules, to_8_bits, white_of_largest


@pytest.mark.parametrize(
    ("largest", "white"), [(30, 255), (230, 255), (256, 511), (3071, 4095), (65535, 65535)]
)
def test_the_range_of_a_set_is_its_smallest_bit_depth(largest: float, white: float) -> None:
    assert white_of_largest(largest) == white


def test_floating_point_numbers_up_to_1_have_the_range_of_1() -> None:
    assert white_of_largest(0.3, is_floating=True) == 1
    assert white_of_largest(1.5, is_floating=True) == 255
    assert PixelRules().white_of(np.float32) == 1


def test_a_declared_maximum_counts_unless_it_only_says_16_bits() -> None:
    rules = PixelRules(max_value=4095)
    assert rules.white_of(np.uint16, own_max=1023) == 1023
    assert rules.white_of(np.uint16, own_max=65535) == 4095
    assert PixelRules().white_of(np.uint16) == 65535


def test_numbers_that_are_none_become_black() -> None:
    values = np.array([[np.nan, -1.0, 0.5, 2.0, np.inf]], np.float32)
    assert to_8_bits(values, 1.0).tolist() == [[0, 0, 128, 255, 255]]
