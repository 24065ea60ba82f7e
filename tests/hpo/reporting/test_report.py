import csv
import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import RetrainConfig, SearchConfig
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung
from hpo.selection.finalists import Finalists, asked_for, training_name, trainings_of
from hpo.selection.verdict import FreshTraining
from hpo.study.study import SearchStudy


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=9"])[0]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def make_study(config: SearchConfig, run: RunFolder, states: list[str]) -> SearchStudy:
    """A study with a trial in each of the states, the later the better."""
    study = create_study(run.storage_url(config), config)
    for i, state in enumerate(states):
        number = study.ask().number
        value = 0.5 + i / 100
        study.report(number, {1: value / 2, 2: value})
        attributes = {"best_value": value, "end_reason": f"<{state}>", "num_parameters": 7}
        if state != "RUNNING":
            study.finish(number, state, attributes, value if state == "COMPLETE" else None)
    return study


def html_of(run: RunFolder) -> str:
    """The page without plotly's own script."""
    text = run.report.read_text()
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


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


def test_importances_of_few_trials_are_not_shown(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 7))
    assert "What mattered" not in html_of(run)


def test_a_browser_draws_every_figure(
    config: SearchConfig, run: RunFolder, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 8))
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000", "--dump-dom", run.report.as_uri(),
        ],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    page = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert page.count('class="main-svg"') >= 4
    assert ">winner<" in page.replace("\n", "")


def test_the_page_needs_no_network(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", run.report.read_text())


def test_confusions_are_of_the_delivered_model(config: SearchConfig, run: RunFolder) -> None:
    metrics = {"top1": 0.75, "confusion_matrix": [[3, 1], [0, 4]]}
    run.best.mkdir()
    (run.best / "metrics.json").write_text(json.dumps({"val": metrics, "test": metrics}))
    (run.best / "classes.json").write_text(json.dumps(["cat", "dog"]))
    study = make_study(config, run, ["COMPLETE", "PRUNED"])
    write_report(run, config, study)
    assert "<h2>Confusions on test</h2>" in run.report.read_text()
    study.metadata.delivered_trial = 0
    write_report(run, config, study)
    assert "test top-1, retrained<b>0.75</b>" in html_of(run)
    study.metadata.delivered_trial = 1  # by `retrain --trial`
    write_report(run, config, study)
    assert "test top-1, of trial 1, which is in best/<b>0.75</b>" in html_of(run)
    assert "<h2>Confusions on test, trial 1</h2>" in run.report.read_text()


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
    best_first = ", ".join(str(number) for number in range(23, 3, -1))
    assert f"<td>overfits</td><td>{best_first} and 3 more</td>" in page
    assert "<td>trial 23: rose &lt;22&gt;</td><td>drop more</td>" in page
    assert "<td>input-bound</td><td>5</td><td>trial 5: waits</td>" in page
    rows = {row["number"]: row for row in csv.DictReader(run.leaderboard.open())}
    assert (rows["5"]["diagnosis"], rows["0"]["diagnosis"]) == ("overfits; input-bound", "")


def test_a_study_without_findings_has_no_diagnosis(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert "Diagnosis" not in html_of(run)


def compare(config: SearchConfig, study: SearchStudy, values: dict[int, list[float]]) -> None:
    """As if the finalists had been trained on fresh seeds."""
    trials = study.trials()
    config = config.model_copy(update={"retrain": RetrainConfig(seeds=2)})
    finalists = Finalists(
        numbers=tuple(values),
        asked_for=asked_for(config, trials),
        num_seeds=2,
        num_val_images=10_000,
        fold_ratio=None,
    )
    study.metadata.finalists = finalists.model_dump(mode="json")
    for i, (number, train) in enumerate(trainings_of(config, trials, finalists)):
        value = values[number][i // len(values)]
        kept = FreshTraining(number, train.seed, value, 4, 4, 4, 1.0, 0.0)
        study.metadata.add_fresh_training(training_name(number, train), asdict(kept))


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
    assert "<h2>Finalists</h2>" in page
    assert re.search(r"Gain: \+0\.3050 \(\+0\.\d+ to \+0\.\d+\) over the default: better", page)
    assert "<td>trial 0 (the default)</td><td>val_top1 0.5050 (" in page


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


def test_a_categorical_and_a_wide_parameter_are_drawn(search_file: Path, run: RunFolder) -> None:
    config, _ = load_search_config(
        search_file,
        ["space.model.name={type: categorical, choices: [sg_former_pico, sg_former_b0]}"],
    )
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 4))
    assert "<h2>Parameters</h2>" in run.report.read_text()
    assert "sg_former_pico" in html_of(run)


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
    assert "<h2>val_top1 and latency_ms</h2>" in page
    assert "maximize val_top1, minimize latency_ms; latency_ms &lt;= 5" in page
    assert "1 infeasible" in page
    assert "<b>trial 1</b>" in page  # the knee


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
