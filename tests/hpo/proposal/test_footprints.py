import pytest

from hpo.proposal import rules
from hpo.proposal.footprints import FOOTPRINTS, at_a_time, megabytes, power_of_two


def test_every_model_of_the_rules_has_a_footprint() -> None:
    groups = (
        rules.OF_GPU, rules.OF_CPU, rules.SIZES, rules.SIZES_OF_CPU, rules.SIZES_OF_TINY,
        rules.MODELS_OF_SMALL,
    )  # fmt: skip
    assert {name for group in groups for name in group} <= set(FOOTPRINTS)


def test_an_image_of_half_the_side_takes_a_quarter() -> None:
    assert megabytes("sg_former_b0", 112) == pytest.approx(megabytes("sg_former_b0", 224) / 4)


def test_the_models_own_bytes_are_left_out_of_the_room() -> None:
    room = 1e9
    assert at_a_time("resnet18", 224, room) == int((room - 11.2e6 * 16) / 22e6)
    assert at_a_time("sg_former_b5", 224, room) == 0


@pytest.mark.parametrize(("number", "expected"), [(0, 1), (1.9, 1), (34, 32), (64, 64)])
def test_powers_of_two_are_not_above_the_number(number: float, expected: int) -> None:
    assert power_of_two(number) == expected
