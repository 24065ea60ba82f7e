"""Tests of the limit on what a proposed search costs."""

from pathlib import Path

import pytest
from proposals import CPUS, GPUS, made_up

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.proposal.budget import budget
from hpo.proposal.file import search_file
from hpo.proposal.machine import Machine
from hpo.proposal.rules import propose


def config_for(machine: Machine, tmp_path: Path) -> SearchConfig:
    """A fine-tuning of 30 epochs: 40 trials, and as many epochs of finalists."""
    path = tmp_path / "search.yaml"
    path.write_text(search_file(propose(made_up(machine=machine))))
    return load_search_config(path)[0]


def test_a_search_of_one_night_has_no_limit(tmp_path: Path) -> None:
    choice = budget(config_for(CPUS, tmp_path), 4, 60)
    assert (choice.path, choice.value) == (("study", "num_trials"), 40)
    assert choice.why == (
        "a full training takes 30 minutes here, and the search about as long as 20 of them, 4 at "
        "a time: about 2.5 hours"
    )


@pytest.mark.parametrize(
    ("machine", "slots", "epoch_seconds", "path", "hours"),
    [
        (CPUS, 4, 420, "wall_clock_hours", 12),
        (GPUS, 2, 600, "gpu_hours", 65),  # thirteen trainings of five hours on two GPUs
        (GPUS, 2, 210, "gpu_hours", 24),
        (CPUS, 1, 36_000, "wall_clock_hours", 3900),
    ],
)
def test_a_longer_search_is_limited_to_a_night_or_thirteen_trainings(
    machine: Machine, slots: int, epoch_seconds: float, path: str, hours: float, tmp_path: Path
) -> None:
    choice = budget(config_for(machine, tmp_path), slots, epoch_seconds)
    assert choice.path == ("budget", path)
    assert choice.value == pytest.approx(hours, rel=0.05)
    assert "without this limit" in choice.why


def test_without_a_measurement_it_is_told_how_to_get_one(tmp_path: Path) -> None:
    choice = budget(config_for(CPUS, tmp_path), 4, None)
    assert (choice.path, choice.value) == (("study", "num_trials"), 40)
    assert "--dry-run --profile" in choice.why


@pytest.mark.parametrize(
    ("epoch_seconds", "words"),
    [(0.01, "takes 1 seconds"), (1, "takes 30 seconds"), (400, "takes 3.3 hours")],
)
def test_durations_are_in_words(epoch_seconds: float, words: str, tmp_path: Path) -> None:
    assert words in budget(config_for(CPUS, tmp_path), 4, epoch_seconds).why
