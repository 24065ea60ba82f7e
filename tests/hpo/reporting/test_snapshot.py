import pytest

from hpo.reporting.snapshot import clock_time, short_params

PARAMS = {"model.name": "sg_former_nano", "optimizer.learning_rate": 0.00123456}


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (65.4, "1:05"), (3600, "1:00:00"), (7265, "2:01:05")]
)
def test_times_read_as_a_clock(seconds: float, expected: str) -> None:
    assert clock_time(seconds) == expected


def test_params_are_named_shortly() -> None:
    assert short_params(PARAMS) == "name=sg_former_nano learning_rate=0.00123"
