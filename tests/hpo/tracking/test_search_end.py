import json
import math
from pathlib import Path

import pytest
from commands import write_run
from searches import FinishedSearch

from hpo.run import open_run
from hpo.tracking.search_end import SearchEnd

FIELDS = {
    "version", "text", "study", "state", "error", "run", "metric", "best_trial", "best_value",
    "gain", "gain_low", "gain_high", "gain_text", "trials", "seconds", "best_folder", "report",
}  # fmt: skip


def test_the_json_of_a_finished_search_has_its_winner_and_files(finished: FinishedSearch) -> None:
    run = open_run(finished.folder)
    told = json.loads(json.dumps(SearchEnd.of(run).as_json(), allow_nan=False))
    assert told.keys() == FIELDS
    assert told["version"] == 1
    assert (told["state"], told["error"], told["study"]) == ("done", None, "digits")
    assert run.verdict is not None
    winner = run.verdict.winner
    assert told["best_trial"] == winner
    assert math.isclose(told["best_value"], run.verdict.means[winner].mean)
    if winner != 0:
        assert told["gain_low"] <= told["gain"] <= told["gain_high"]
    assert Path(told["best_folder"], "model.onnx").is_file()
    assert Path(told["report"]).is_file()
    assert sum(told["trials"].values()) == len(run.trials)
    assert told["seconds"] > 0


def test_without_a_comparison_the_best_trial_is_told(search_file: Path, tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "own", search_file))
    end = SearchEnd.of(run, "failed", "the disk is full")
    assert run.best is not None
    told = f"val_top1 {run.best_value:.4f} (trial {run.best.number})"
    assert end.text == f"search own: failed, {told}; the disk is full"
    variables = end.as_variables()
    assert variables["HPO_END_BEST_VALUE"] == str(run.best_value)
    assert variables["HPO_END_GAIN"] == variables["HPO_END_REPORT"] == ""
    unknown = SearchEnd.without_study(run.config, run.folder, "failed", None)
    assert unknown.as_json().keys() == FIELDS
    assert unknown.best_value is None


@pytest.mark.parametrize("text", ["a\0b"])
def test_no_variable_has_a_nul(text: str, search_file: Path, tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "own", search_file))
    assert SearchEnd.of(run, "failed", text).as_variables()["HPO_END_ERROR"] == "ab"
