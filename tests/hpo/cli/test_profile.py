"""Tests of `search --dry-run --profile`, with measurements of a part of a second."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Call, refused

from hpo.config.schema import SearchConfig
from hpo.execution import profile
from hpo.execution.cluster import Node
from hpo.execution.profile import Cost, architectures

MODELS = "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}"


@pytest.fixture
def command(search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    monkeypatch.setattr(profile, "SECONDS_OF_STEPS", 0.1)
    sets = ("--set", MODELS, "--set", f"train.data.cache_dir={tmp_path / 'cache'}")
    return ("search", search_file, "--output-dir", tmp_path / "runs", *sets)


def rows_of(out: str, first: str) -> list[str]:
    """The rows of the table whose first column has this name."""
    return out.split(f"\n{first}")[1].split("\n\n")[0].splitlines()


def test_a_profile_says_what_a_search_costs_and_leaves_nothing(
    call: Call, command: tuple[Any, ...], tmp_path: Path
) -> None:
    code, out, err = call(*command, "--dry-run", "--profile")
    assert code == 0, err
    header, *costs = rows_of(out, "architecture")
    assert re.split(r"  +", header.strip()) == ["s an epoch", "memory", "trials an hour"]
    assert [row.split(" at ")[0] for row in costs] == ["sg_former_pico", "sg_former_nano"]
    assert all(re.search(r"  [\d.]+  +[\d.]+ GB  +[\d.,]+$", row) for row in costs)
    header, asha, none = rows_of(out, "the budget buys")
    assert header.split()[:3] == ["trials", "epochs", "GPU-hours"]
    assert re.match(r"asha +4 ", asha)
    assert re.match(r"no stopping +4 +20 ", none)  # four trials and the winner, of four epochs
    assert "curves are power laws drawn at random" in out
    assert "measuring sg_former_nano at 32 pixels, batches of 20 (2 of 2)\n" in err
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "cache").exists()


def test_a_profile_without_a_dry_run_is_refused(call: Call, command: tuple[Any, ...]) -> None:
    message = refused(call(*command, "--profile"))
    assert (
        "--profile: measures what a search would cost and starts none; give --dry-run" in message
    )


def test_a_profile_refuses_what_a_dry_run_refuses(call: Call, command: tuple[Any, ...]) -> None:
    gone = ("--dry-run", "--profile", "--data-dir", "/nowhere")
    assert "image folder not found: /nowhere" in refused(call(*command, *gone))


def test_architectures_that_all_miss_a_constraint_are_refused(
    call: Call, command: tuple[Any, ...]
) -> None:
    bound = ("--set", "study.constraints=[num_parameters <= 10]")
    message = refused(call(*command, "--dry-run", "--profile", *bound))
    assert "no architecture of the space keeps to study.constraints" in message


def test_where_there_is_a_gpu_it_says_the_share(
    call: Call, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(config: SearchConfig, *_: object) -> Iterator[Cost]:  # there is no GPU here
        pico, nano = architectures(config)
        yield Cost(pico, 10.0, 2 * 10**9, "cuda of here", 20, 80 * 10**9, 0.2)
        yield Cost(nano, 20.0, 9 * 10**9, "cuda of here", 20, 80 * 10**9, 0.45)

    monkeypatch.setattr(profile, "profiled", found)
    monkeypatch.setattr("hpo.execution.cluster.local_nodes", lambda config: (Node(8, 1),))
    auto = ("--set", "resources={gpus_per_trial: auto}", "--set", "train.device=auto")
    code, out, err = call(*command, *auto, "--dry-run", "--profile")
    assert code == 0, err
    assert "8 CPU; 1 GPU or a share, as is measured when the search starts" in out
    header, pico, nano = rows_of(out, "architecture")
    assert "GPU busy  share of a GPU" in header
    assert re.search(r" 10 +2 GB of 80 +20% +0.25 +360$", pico)  # four at a time
    assert re.search(r" 20 +9 GB of 80 +45% +0.5 +90$", nano)
    assert "2 CPU and 0.25 GPU, or more, a trial; 2 to 4 at a time" in out
    assert "a process without a GPU" not in out
