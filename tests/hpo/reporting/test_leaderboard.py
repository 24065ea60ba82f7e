"""Tests of leaderboard.csv."""

import csv

from reports import make_study

from hpo.config.schema import SearchConfig
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder


def test_the_leaderboard_ranks_complete_trials_then_the_rest(
    config: SearchConfig, run: RunFolder
) -> None:
    states = ["COMPLETE", "PRUNED", "COMPLETE", "FAIL", "PRUNED", "RUNNING"]
    write_report(run, config, make_study(config, run, states))
    rows = list(csv.DictReader(run.leaderboard.open()))
    assert [int(row["number"]) for row in rows] == [2, 0, 4, 1, 5, 3]
    assert [row["val_top1"] for row in rows[:3]] == ["0.52", "0.5", ""]
    assert set(config.space) < set(rows[0])
    assert rows[0]["num_epochs"] == "2"
