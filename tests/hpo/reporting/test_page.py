"""Tests of the text of report.html."""

import re

import pytest
from reports import compare, html_of, make_study

from hpo.config.schema import SearchConfig
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung


def test_the_page_names_winner_default_and_states(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE", "PRUNED", *["COMPLETE"] * 7])
    write_report(run, config, study)
    page = html_of(run)
    assert "9 trials (8 complete, 1 pruned), maximize val_top1" in page
    assert "winner<b>trial 8</b>" in page
    assert "the default&#39;s val_top1<b>0.5</b>" in page
    for title in ("Every trial", "Learning curves", "Parameters", "What mattered", "Leaderboard"):
        assert f"<h2>{title}</h2>" in page
    assert "&lt;COMPLETE&gt;" in page
    assert "<COMPLETE>" not in page


def test_the_page_needs_no_network(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", run.report.read_text())


def test_a_study_without_findings_has_no_diagnosis(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert "Diagnosis" not in html_of(run)


def test_a_default_that_wins_is_told_plainly(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE", "COMPLETE"])
    compare(config, study, {1: [0.5, 0.51], 0: [0.5, 0.52]})
    write_report(run, config, study)
    assert "winner<b>trial 0</b>" in html_of(run)
    assert "none: the default configuration is the best of 2 finalists" in html_of(run)


@pytest.mark.parametrize("states", [[], ["RUNNING"], ["FAIL"], ["PRUNED", "PRUNED"]])
def test_a_study_without_a_winner_has_a_report(
    config: SearchConfig, run: RunFolder, states: list[str]
) -> None:
    write_report(run, config, make_study(config, run, states))
    assert "No trial has run to its end yet" in html_of(run)


def test_the_page_says_where_trials_were_first_compared_and_why(
    config: SearchConfig, run: RunFolder
) -> None:
    values = config.model_dump()
    values["scheduler"]["min_epochs"] = None
    values["scheduler"]["name"] = "freeze_thaw"
    values["study"]["sampler"] = None
    config = SearchConfig.model_validate(values)
    study = make_study(config, run, ["COMPLETE", "PRUNED"])
    write_report(run, config, study)
    assert (
        "First decision at epoch 1 of 4 (default: 2 of 4 trials needed have come to epoch 2)"
    ) in html_of(run)
    level = FirstRung(epoch=2, late=4, num_trials=9, agreement={1: 0.25})
    study.metadata.first_levels = [level.model_dump(mode="json")]
    write_report(run, config, study)
    assert (
        "First decision at epoch 2 of 4: ranks before disagree with those at epoch 4 "
        "(Spearman 0.25 at epoch 1, 9 trials)"
    ) in html_of(run)
