"""Tests of the command simulate."""

import json
from pathlib import Path

from commands import Call, refused, write_run


def test_simulate_says_what_the_surrogate_has(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    own = write_run(tmp_path / "own", search_file)
    other = write_run(tmp_path / "other", search_file, "study.seed=1", "study.num_trials=6")
    command = ("simulate", own, "--scheduler", "asha", "--sampler", "random")
    code, out, err = call(*command, "--surrogate", other)
    assert code == 0, err
    assert "6 of the 6 trials of study other" in out
    assert "surrogate" not in call(*command)[1]
    _, out, _ = call(*command, "--surrogate", other, "--json")
    assert json.loads(out)["num_surrogate_trials"] == 6


def test_a_storage_that_is_given_is_not_that_of_a_surrogate_in_its_folder(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    url = f"journal:{tmp_path / 'journal'}"
    stored = write_run(tmp_path / "own", search_file, f"study.storage={url}")
    other = write_run(tmp_path / "other", search_file)
    strategy = ("--scheduler", "asha", "--sampler", "random")
    for run_dir, surrogate in ((stored, other), (other, stored)):
        storage = ("--storage", url) if run_dir == stored else ()
        code, _, err = call("simulate", run_dir, "--surrogate", surrogate, *strategy, *storage)
        assert code == 0, err


def test_a_surrogate_that_cannot_be_used_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    own = write_run(tmp_path / "own", search_file)
    longer = write_run(tmp_path / "longer", search_file, "train.max_epochs=3")
    for surrogate, message in (
        (own / ".." / "own", "is the run itself; name another run's folder"),
        (longer, "max_epochs: 3 there, 4 here"),
        (tmp_path, f"not a run folder: {tmp_path} has no search.yaml"),
    ):
        assert message in refused(call("simulate", own, "--surrogate", surrogate))
