"""`train_only.py` with one GPU that is not there, of which models take different shares.

sg_former_pico takes half of the GPU, sg_former_nano all of it; trainings run on the CPU. With
NOTHING_TO_MEASURE in the environment the search may not measure what they take.
"""

import os
from collections.abc import Iterator
from typing import Any

import ray
import train_only

from hpo.config.schema import SearchConfig
from hpo.execution import gpu_share
from hpo.execution.profile import Cost, architectures

BUSY = {"sg_former_pico": 0.4, "sg_former_nano": 0.9}


def found(config: SearchConfig, *_: object) -> Iterator[Cost]:
    """What a measurement on a GPU of 80 GB would find."""
    assert "NOTHING_TO_MEASURE" not in os.environ
    for one in architectures(config):
        yield Cost(one, 1.0, 10**9, "cuda of here", 20, 80 * 10**9, BUSY[str(one["model.name"])])


def main() -> None:
    start = ray.init

    def init(*args: Any, **options: Any) -> Any:
        return start(*args, **options | {"num_gpus": 1})

    ray.init = init
    gpu_share.measured_on_cluster = found  # type: ignore[assignment]
    train_only.run()


if __name__ == "__main__":
    main()
