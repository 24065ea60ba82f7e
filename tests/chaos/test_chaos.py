"""The short form; `make chaos` is the long one."""

from pathlib import Path

import pytest
from chaos import Chaos


@pytest.mark.slow
def test_a_search_whose_driver_is_killed_three_times_is_as_one_left_alone(
    image_folder: Path, tmp_path: Path
) -> None:
    chaos = Chaos(tmp_path, image_folder)
    chaos.run_undisturbed()
    counts = chaos.run_killed(3)
    assert counts.kills_survived == 3
    assert counts.kills_within_a_trial >= 1
    assert counts.damage() == {}
