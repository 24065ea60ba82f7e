"""Tests of the figures of report.html."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reports import html_of, make_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder


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


def test_a_categorical_and_a_wide_parameter_are_drawn(search_file: Path, run: RunFolder) -> None:
    config, _ = load_search_config(
        search_file,
        ["space.model.name={type: categorical, choices: [sg_former_pico, sg_former_b0]}"],
    )
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 4))
    assert "<h2>Parameters</h2>" in run.report.read_text()
    assert "sg_former_pico" in html_of(run)
