import pytest

from hpo.serving.settings import (
    Batching,
    Limits,
    Replicas,
    choose_batching,
    most_requests,
    parse_replicas,
)
from sgformer.errors import InputError


@pytest.mark.parametrize(
    ("seconds", "max_size"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing gained
        ({1: 0.001, 2: 0.002, 4: 0.004, 8: 0.008}, 8),  # the call is shared
        ({1: 0.1, 2: 0.11, 4: 0.12, 8: 0.24, 16: 0.6}, 4),  # the smallest of those as good
        ({1: 0.1, 2: 0.11, 4: 0.12, 8: 0.13, 16: 0.6}, 8),  # too long for the others
        ({1: 3.0}, 1),
    ],
)
def test_the_smallest_batch_that_is_as_good_as_the_best_is_chosen(
    seconds: dict[int, float], max_size: int
) -> None:
    chosen = choose_batching(seconds)
    assert chosen == Batching(max_size, seconds[1] / 4 if max_size > 1 else 0.0)


def test_the_queue_holds_four_batches_of_each_replica_unless_it_is_given() -> None:
    assert most_requests(Limits(), Batching(8, 0), Replicas(1, 1, 1)) == 64
    assert most_requests(Limits(), Batching(32, 0), Replicas(1, 2, 1)) == 256
    assert most_requests(Limits(requests=3), Batching(32, 0), Replicas(1, 2, 1)) == 3


def test_the_processes_share_the_cpus_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.serving.settings.usable_cpus", lambda: 9)
    assert parse_replicas("1", None, 1) == Replicas(1, 1, 8)
    assert parse_replicas("2:4", None, 2) == Replicas(2, 4, 2)
    assert parse_replicas("16", None, 1) == Replicas(16, 16, 1)
    assert parse_replicas("1", 3, 1) == Replicas(1, 1, 3)


@pytest.mark.parametrize("text", ["", "x", "1:", ":2", "-1", "1:2:3", "1.5"])
def test_what_is_no_number_of_replicas_is_named(text: str) -> None:
    with pytest.raises(InputError, match=rf"'{text}' is no number of replicas.*--replicas"):
        parse_replicas(text, None, 1)


@pytest.mark.parametrize("text", ["0", "4:2", "1:65"])
def test_ranges_of_replicas_are_checked(text: str) -> None:
    with pytest.raises(InputError, match=r"fewest <= most <= 64 \(--replicas\)"):
        parse_replicas(text, None, 1)
