from pathlib import Path

import pytest

from hpo.engine.checkpoints import TrialCheckpoints
from sgformer.errors import DiskFullError


def train(folder: Path, number: int) -> None:
    """Writes a trial's files: checkpoints of 100 bytes, and a curve."""
    trial = folder / str(number)
    trial.mkdir(parents=True)
    for name, size in (("last", 60), ("best", 40)):
        (trial / f"{name}.safetensors").write_bytes(bytes(size))
    (trial / "last.safetensors.tmp").touch()
    (trial / "epochs.csv").write_text("epoch")


def kept(folder: Path) -> list[int]:
    return sorted(int(path.parent.name) for path in folder.glob("*/best.safetensors"))


@pytest.mark.parametrize(("maximise", "expected"), [(True, [0, 1, 3]), (False, [0, 4, 5])])
def test_the_best_complete_trials_keep_theirs(
    tmp_path: Path, maximise: bool, expected: list[int]
) -> None:
    checkpoints = TrialCheckpoints(tmp_path, 2, maximise=maximise)
    train(tmp_path, 0)  # trial 0 keeps running
    for number, value in ((1, 0.9), (2, None), (3, 0.8), (4, 0.5), (5, 0.6), (6, 0.8)):
        train(tmp_path, number)
        checkpoints.trial_ended(number, value)
    assert kept(tmp_path) == expected
    assert not list((tmp_path / "2").glob("*.safetensors*"))
    assert (tmp_path / "2" / "epochs.csv").exists()


def test_a_trial_starts_only_where_its_checkpoints_fit(tmp_path: Path) -> None:
    checkpoints = TrialCheckpoints(tmp_path, 2, maximise=True, max_bytes=350)
    assert checkpoints.has_room(0)  # no trial's size is known yet
    train(tmp_path, 0)
    checkpoints.trial_ended(0, 0.5)
    assert checkpoints.has_room(1)
    assert not checkpoints.has_room(2)
    train(tmp_path, 1)
    checkpoints.trial_ended(1, None)
    assert checkpoints.has_room(1)


def test_paused_trials_count_and_keep_what_they_are_resumed_from(tmp_path: Path) -> None:
    checkpoints = TrialCheckpoints(tmp_path, 2, maximise=True, max_bytes=350)
    train(tmp_path, 0)
    (tmp_path / "0" / "previous.safetensors").write_bytes(bytes(60))
    checkpoints.trial_paused(0)
    assert sorted(path.name for path in (tmp_path / "0").glob("*.safetensors")) == [
        "best.safetensors", "last.safetensors",
    ]  # fmt: skip
    assert checkpoints.has_room(1)
    assert not checkpoints.has_room(2)
    checkpoints.trial_resumed(0)  # the trial counts as running again
    assert checkpoints.has_room(2)
    checkpoints.trial_paused(0)
    train(tmp_path, 1)
    train(tmp_path, 2)
    checkpoints.trial_paused(1)
    checkpoints.trial_paused(2)
    assert not checkpoints.has_room(0)  # one of the three trials must lose its checkpoints
    checkpoints.trial_ended(2, None)
    assert checkpoints.has_room(0)


def test_a_budget_that_nothing_will_fit_into_is_told(tmp_path: Path) -> None:
    checkpoints = TrialCheckpoints(tmp_path, 2, maximise=True, max_bytes=150)
    train(tmp_path, 0)
    checkpoints.trial_ended(0, 0.5)
    assert not checkpoints.has_room(1)  # no room until the running trial replaces a worse one
    with pytest.raises(DiskFullError, match=r"take 200 bytes, and budget\.disk_bytes is 150"):
        checkpoints.has_room(0)
