"""Tests of facts that leaderboard.csv and report.html both show."""

import csv
import re

import pytest
from reports import compare, figures_of, html_of, make_study
from studies import create_study

from hpo.config.schema import ReportConfig, SearchConfig
from hpo.model_files import ModelFiles
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder


def test_findings_are_listed_with_their_trials_and_remedies(
    config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE"])
    for i in range(23):
        number = study.ask().number
        findings = [{"tag": "overfits", "evidence": f"rose <{i}>", "remedy": "drop more"}]
        if i == 4:
            findings.append({"tag": "input-bound", "evidence": "waits", "remedy": "load more"})
        study.report(number, {1: 0.9 + i / 1000})
        study.finish(number, "COMPLETE", {"diagnosis": findings}, 0.9 + i / 1000)
    write_report(run, config, study)
    page = html_of(run)
    best_first = ", ".join(f"<a href='#trial-{n}'>{n}</a>" for n in range(23, 3, -1))
    assert f"<td>overfits</td><td>{best_first} and 3 more</td>" in page
    assert "<td>trial 23: rose &lt;22&gt;</td><td>drop more</td>" in page
    assert "<td>input-bound</td><td><a href='#trial-5'>5</a></td><td>trial 5: waits</td>" in page
    rows = {row["number"]: row for row in csv.DictReader(run.leaderboard.open())}
    assert (rows["5"]["diagnosis"], rows["0"]["diagnosis"]) == ("overfits; input-bound", "")


def test_who_wins_on_fresh_seeds_comes_first_with_the_gain(
    config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"])
    compare(config, study, {3: [0.6, 0.61], 2: [0.8, 0.82], 0: [0.5, 0.51]})
    write_report(run, config, study)
    rows = list(csv.DictReader(run.leaderboard.open()))
    assert [int(row["number"]) for row in rows] == [2, 3, 1, 0]
    assert float(rows[0]["gain"]) == pytest.approx(0.305)
    assert float(rows[0]["gain_low"]) < 0.305 < float(rows[0]["gain_high"])
    assert [row["mean_on_fresh_seeds"] != "" for row in rows] == [True, True, False, True]
    page = html_of(run)
    assert "winner<b>trial 2</b>" in page
    assert ">Finalists</h2>" in page
    assert re.search(r"Gain: \+0\.3050 \(\+0\.\d+ to \+0\.\d+\) over the default: better", page)
    assert "<td>trial 0 (the default)</td><td>val_top1 0.5050 (" in page


def test_several_objectives_have_a_front_in_table_and_page(
    config: SearchConfig, run: RunFolder
) -> None:
    values = config.model_dump()
    values["study"] |= {
        "objectives": [["val_top1", "maximize"], ["latency_ms", "minimize"]],
        "constraints": ["latency_ms <= 5"],
        "select": None,
    }
    config = SearchConfig.model_validate(values)
    study = create_study(run.storage_url(config), config)
    for value, latency in ((0.5, 1.0), (0.75, 2.0), (0.625, 3.0), (0.875, 4.0), (0.9, 9.0)):
        number = study.ask().number
        study.report(number, {1: value})
        missed = {"latency_ms <= 5": latency / 5 - 1}
        study.finish(number, "COMPLETE", {"latency_ms": latency}, value, missed)
    ruled_out = study.ask().number
    reason = {"end_reason": "infeasible: latency_ms 9, not <= 5", "latency_ms": 9.0}
    study.finish(ruled_out, "PRUNED", reason, None, {"latency_ms <= 5": 0.8})
    write_report(run, config, study)
    rows = {int(row["number"]): row for row in csv.DictReader(run.leaderboard.open())}
    assert {n for n, row in rows.items() if row["front"] == "True"} == {0, 1, 3}
    assert (rows[1]["val_top1"], rows[1]["latency_ms"]) == ("0.75", "2.0")
    page = html_of(run)
    front = figures_of(run)["front-latency_ms"]["data"]
    assert next(t["customdata"] for t in front if t["name"] == "Pareto front") == [0, 1, 3]
    assert "and minimize latency_ms; latency_ms &lt;= 5" in page
    assert "1 infeasible" in page
    assert "<b>trial 1</b>" in page  # the knee


@pytest.mark.parametrize("images", [True, False])
def test_pictures_that_are_no_longer_wanted_are_removed(
    images: bool, config: SearchConfig, run: RunFolder
) -> None:
    study = make_study(config, run, ["COMPLETE"])
    files = [ModelFiles(folder).pictures for folder in (run.best, run.front / "3")]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text('{"split": "val", "mistakes": [], "confused": []}')
    asked = config.model_copy(update={"report": ReportConfig(images=images)})
    write_report(run, asked, study)
    assert [path.exists() for path in files] == [images, images]
