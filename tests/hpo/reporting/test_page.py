"""Tests of the text of report.html."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from reports import compare, html_of, make_study

from hpo.config.schema import SearchConfig
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung
from sgformer.training.counts import Counts
from sgformer.training.evaluation import split_metrics


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


def test_the_page_of_ten_thousand_classes_shows_the_most_frequent_confusions(
    config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE"])
    write_report(run, config, study)
    size_without = len(run.report.read_text())
    classes = ("<b>cat</b>", *(f"class {i}" for i in range(1, 10_000)))
    labels = torch.from_numpy(np.repeat(np.arange(50), 4))
    predicted = labels + 1
    predicted[1] = 9999  # one of the four cats
    counts = Counts(len(classes), keeps_pairs=True)
    counts.add(torch.nn.functional.one_hot(predicted, len(classes)).float(), labels)
    metrics = json.dumps({"val": asdict(split_metrics(counts, classes)), "test": None})
    run.best.mkdir()
    (run.best / "metrics.json").write_text(metrics)
    (run.best / "classes.json").write_text(json.dumps(classes))
    write_report(run, config, study)
    page = html_of(run)
    assert "<h2>Confusions on val, the 30 most frequent</h2>" in page
    cells = [f"<td>{text}</td>" for text in ("class 1", "class 2", "4", "100%")]
    assert "".join(cells) in page
    assert "cat" not in page  # its 3 and 1 confusions are not among the first
    assert len(run.report.read_text()) < size_without + 10_000


def test_a_confused_class_is_named_as_text(config: SearchConfig, run: RunFolder) -> None:
    metrics = {
        "top1": 0.5, "confusion_matrix": None, "per_class": {"<b>cat</b>": {"support": 8}},
        "most_confused": [{"true": "<b>cat</b>", "predicted": "dog", "num_images": 2}],
    }  # fmt: skip
    run.best.mkdir()
    (run.best / "metrics.json").write_text(json.dumps({"val": metrics, "test": metrics}))
    (run.best / "classes.json").write_text(json.dumps(["<b>cat</b>", "dog"]))
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    page = html_of(run)
    assert "<h2>Confusions on test</h2>" in page
    assert "<td>&lt;b&gt;cat&lt;/b&gt;</td><td>dog</td><td>2</td><td>25%</td>" in page
