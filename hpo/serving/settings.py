"""Settings of `serve`: limits of requests, batches, replicas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sgformer.cpus import usable_cpus
from sgformer.errors import InputError

# What a call to a replica costs beside the model, in CPU seconds of both processes.
# Source: docs/performance.md.
SECONDS_OF_A_CALL: Final = 0.0015
GOOD_ENOUGH: Final = 1.05  # a smaller batch is preferred if images cost at most this factor more
SECONDS_OF_A_BATCH: Final = 0.5  # larger batches would keep others waiting
MOST_REPLICAS: Final = 64
WAIT: Final = 0.25  # a lone image waits for others for this share of its own time


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body_bytes: The most bytes of a request's body.
        pixels: The most pixels of an image.
        requests: The most requests of a model at a time: being read, waiting, or computed. None:
            it follows from the batches.
        seconds: The time that a body may take to arrive, and an answer after it.
    """

    body_bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    requests: int | None = None
    seconds: float = 30.0


@dataclass(frozen=True)
class Batching:
    """How images become batches.

    Attributes:
        max_size: The most images of a batch.
        wait_seconds: How long a batch that is not full waits for more images, if a replica is
            free.
    """

    max_size: int
    wait_seconds: float


@dataclass(frozen=True)
class Replicas:
    """The processes of each model.

    Attributes:
        fewest: Processes that always run.
        most: Processes that Ray Serve may start when batches wait.
        threads: Threads of each process.
    """

    fewest: int
    most: int
    threads: int


def choose_batching(seconds: Mapping[int, float]) -> Batching:
    """The batches that suit a model.

    Args:
        seconds: How long the model takes for a batch, by its size; one of size 1 is among them.

    Returns:
        The smallest batch of those in which an image costs little more than in the best; and a
        wait that makes a lone image's answer a quarter slower at most.
    """
    costs = {
        size: (SECONDS_OF_A_CALL + taken) / size
        for size, taken in seconds.items()
        if size == 1 or taken <= SECONDS_OF_A_BATCH
    }
    least = min(costs.values())
    max_size = min(size for size, cost in costs.items() if cost <= GOOD_ENOUGH * least)
    return Batching(max_size, WAIT * seconds[1] if max_size > 1 else 0.0)


def most_requests(limits: Limits, batching: Batching, replicas: Replicas) -> int:
    """The most requests of a model at a time: the limit, or four batches of each replica."""
    return limits.requests or max(64, 4 * batching.max_size * replicas.most)


def parse_replicas(text: str, threads: int | None, num_models: int) -> Replicas:
    """The processes of each model, from a text such as '2' or '1:4'.

    Args:
        text: How many, or the fewest and the most.
        threads: Threads of each process; None: the CPUs but one, which is left to the HTTP server,
            are shared by those that always run. ONNX Runtime's threads wait for each other in a
            loop, so one too many costs more than it computes (docs/performance.md).
        num_models: The number of models.

    Raises:
        InputError: The text is not of this form.
    """
    fewest, colon, most = text.partition(":")
    if not fewest.isdecimal() or (colon and not most.isdecimal()):
        raise InputError(
            f"{text!r} is no number of replicas; expected one such as 2, or 1:4 for the fewest "
            "and the most (--replicas)"
        )
    low, high = int(fewest), int(most or fewest)
    if not 1 <= low <= high <= MOST_REPLICAS:
        raise InputError(
            f"{text!r} is no range of replicas; expected 1 <= fewest <= most <= {MOST_REPLICAS} "
            "(--replicas)"
        )
    return Replicas(low, high, threads or max(1, (usable_cpus() - 1) // (low * num_models)))
