"""The page as a whole: it stands alone, for any study, and shows foreign texts as they are."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from reports import compare, data_of, embedded, figures_of, html_of, make_study
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.reporting.leaderboard import leaderboard_rows
from hpo.reporting.page.render import render_page
from hpo.reporting.page.reported import Reported
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus, TrialSummary
from sgformer.training.counts import Counts
from sgformer.training.evaluation import split_metrics

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\""
MOST_BYTES = 6_000_000


def test_the_page_names_winner_default_and_states(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE", "PRUNED", *["COMPLETE"] * 7])
    write_report(run, config, study)
    page = html_of(run)
    assert "9 trials (8 complete, 1 pruned)" in page
    assert "best so far<b>trial 8</b>" in page
    assert "the default&#39;s val_top1<b>0.5</b>" in page
    for title in ("Summary", "Health", "Every trial", "Learning curves", "Parameters", "Trials"):
        assert f">{title}</h2>" in page
    assert "&lt;COMPLETE&gt;" not in page  # the reason of an end is in the data of the trials
    assert data_of(run, "data-trials")["table"]["rows"][0][1] == "complete"


@pytest.mark.parametrize(
    ("states", "says", "lacks"),
    [
        ([], "It has not begun: no trial has started.", "Every trial"),
        (["RUNNING"], "It has not ended: 1 trial is running", "Finalists"),
        (["FAIL", "FAIL"], "None: no trial has run to its end yet.", "Finalists"),
        (["PRUNED", "PRUNED"], "None: no trial has run to its end yet.", "What went wrong"),
        (["COMPLETE"], "Trial 0 leads: val_top1 0.5000.", "What went wrong"),
        (["COMPLETE", "RUNNING", "FAIL", "PRUNED"], "Trial 0 leads", "Finalists"),
    ],
    ids=["empty", "unfinished", "failed", "stopped", "one", "of every state"],
)
def test_there_is_a_page_for_any_study(
    config: SearchConfig, run: RunFolder, states: list[str], says: str, lacks: str
) -> None:
    write_report(run, config, make_study(config, run, states))
    page = html_of(run)
    assert says in page
    assert f">{lacks}</h2>" not in page
    assert not re.search(r"</h2>\s*</section>", page)  # no section is empty
    for figure in figures_of(run).values():
        assert figure["data"]


def test_the_page_asks_for_nothing(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 3))
    text = run.report.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=['\"](?!data:)", text)
    assert not re.search(r"url\(|@import", html_of(run))


def test_plotly_is_the_last_script_but_one_and_figures_are_data(
    config: SearchConfig, run: RunFolder
) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 3))
    kinds = re.findall(r"<script( type='[^']+' id='([^']+)')?", run.report.read_text())
    assert [name for _, name in kinds][-2:] == ["plotly", ""]
    program = embedded(run.report, "plotly")
    assert program is not None
    assert "Plotly" in program
    assert {"history", "curves", "parallel", "slice-0"} <= set(figures_of(run))


def test_each_figure_has_a_sentence(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE"] * 9)
    compare(config, study, {3: [0.6, 0.61], 2: [0.8, 0.82], 0: [0.5, 0.51]})
    write_report(run, config, study)
    boxes = re.findall(r"<div class='plot'[^>]*role='img' aria-label='([^']*)'", html_of(run))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html_of(run))
    assert boxes == captions
    assert len(boxes) == len(figures_of(run)) >= 6
    assert all(text.endswith(".") for text in boxes)


def foreign_texts(config: SearchConfig, run: RunFolder) -> SearchStudy:
    study = create_study(run.storage_url(config), config)
    for state in ("COMPLETE", "FAIL", "COMPLETE"):
        number = study.ask().number
        study.report(number, {1: 0.5})
        error = {"type": EVIL, "message": EVIL, "traceback": EVIL}
        finding = {"tag": EVIL, "evidence": EVIL, "remedy": EVIL}
        attributes = {"error": error, "end_reason": EVIL, "diagnosis": [finding], "gpu": EVIL,
                      "code_version": EVIL}  # fmt: skip
        study.finish(number, state, attributes, 0.5 if state == "COMPLETE" else None)
    per_class = {EVIL: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 8}}
    metrics = {
        "top1": 0.5, "num_images": 8, "confusion_matrix": [[3, 1], [0, 4]], "per_class": per_class,
        "most_confused": [],
    }  # fmt: skip
    image = {
        "file": EVIL, "true": EVIL, "predicted": EVIL, "confidence": 0.9, "thumbnail": "/9j/",
        "saliency": EVIL,
    }  # fmt: skip
    confused = {"true": EVIL, "predicted": EVIL, "num_images": 1, "images": [image]}
    pictures = {"split": EVIL, "mistakes": [image], "confused": [confused]}
    run.best.mkdir()
    (run.best / "metrics.json").write_text(json.dumps({"val": metrics, "test": metrics}))
    (run.best / "classes.json").write_text(json.dumps([EVIL, "dog"]))
    (run.best / "pictures.json").write_text(json.dumps(pictures))
    return study


def test_foreign_texts_are_shown_as_they_are(config: SearchConfig, run: RunFolder) -> None:
    write_report(run, config, foreign_texts(config, run))
    text = run.report.read_text()
    assert "alert(1)" in text
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert len(re.findall("<script", text)) == len(re.findall("</script>", text))
    trials = data_of(run, "data-trials")
    assert trials["errors"]["1"] == EVIL
    assert data_of(run, "data-classes")["rows"][0][0] == EVIL
    matrix = data_of(run, "figure-confusions")["data"][0]
    assert not any("<" in name for name in matrix["x"])
    assert html_of(run).count("src='data:image/jpeg;base64,/9j/'") == 2


def many_trials(config: SearchConfig, run: RunFolder, num: int) -> Reported:
    """A study of so many trials of 20 epochs, with twenty parameters' worth of attributes."""
    study = SearchStudy.in_memory(config.study, config.space)
    draw = np.random.default_rng(0)
    states = [TrialStatus.COMPLETE, *[TrialStatus.PRUNED] * 7, TrialStatus.FAIL]
    trials = []
    for number in range(num):
        state = states[number % len(states)]
        curve = {i + 1: float(v) for i, v in enumerate(np.sort(draw.random(20)))}
        params = {"optimizer.learning_rate": float(10 ** draw.uniform(-4, -2)),
                  "model.drop_rate": float(draw.integers(11)) / 20}  # fmt: skip
        reason = "completed" if state == TrialStatus.COMPLETE else "stopped at rung 4"
        facts = {
            "best_value": curve[20], "end_reason": reason, "standing": [number, num],
            "seconds": float(draw.random()) * 100, "num_parameters": 7, "gpu_seconds": 3.0,
            "diagnosis": [{"tag": "overfits", "evidence": f"rose by {draw.random():.3f}",
                           "remedy": "more augmentation, more regularisation"}],
            "error": {"type": "OSError", "message": "no " * 50, "traceback": "line\n" * 40},
        }  # fmt: skip
        value = curve[20] if state == TrialStatus.COMPLETE else None
        trials.append(TrialSummary(number, state, value, params, curve, facts))
    return Reported(run, config, study, trials, trials[0], None)


def test_ten_thousand_trials_fit(config: SearchConfig, run: RunFolder) -> None:
    found = many_trials(config, run, 10_000)
    page = render_page(found, list(leaderboard_rows(found.trials, config)))
    run.report.write_text(page)
    assert len(page.encode()) < MOST_BYTES
    table = data_of(run, "data-trials")
    assert len(table["table"]["rows"]) == len(table["curves"]) == 10_000
    assert len(html_of(run)) < 60_000  # trials are no elements
    assert "200 of the 10000 trials" in html_of(run)
    traced = [text for text in table["errors"].values() if text.startswith("line\n")]
    assert len(traced) == 100
    history = data_of(run, "figure-history")["data"]
    assert sum(len(trace["x"]) for trace in history[:-1]) <= 3000


def test_ten_thousand_classes_fit(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE"])
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
    assert "The most frequent confusions on val, 30 pairs of classes." in page
    cells = [f"<td>{text}</td>" for text in ("class 1", "class 2", "4", "100 %")]
    assert "".join(cells) in page
    assert "cat" not in page  # its 3 and 1 confusions are not among the first
    assert len(data_of(run, "data-classes")["rows"]) == 10_000
    assert len(run.report.read_bytes()) < MOST_BYTES
    assert len(page) < 40_000  # classes are no elements


def test_large_data_are_packed_and_small_ones_can_be_read(
    config: SearchConfig, run: RunFolder
) -> None:
    write_report(run, config, make_study(config, run, ["COMPLETE"]))
    assert "<script type='application/json' id='data-trials'>" in run.report.read_text()
    found = many_trials(config, run, 3000)
    run.report.write_text(render_page(found, list(leaderboard_rows(found.trials, config))))
    assert "<script type='application/gzip' id='data-trials'>" in run.report.read_text()


def test_the_same_run_gives_the_same_page(config: SearchConfig, run: RunFolder) -> None:
    study = make_study(config, run, ["COMPLETE"] * 9)
    write_report(run, config, study)
    first = html_of(run)
    write_report(run, config, study)
    clock = r"as of [^<]*"
    assert re.sub(clock, "", html_of(run)) == re.sub(clock, "", first)


def test_a_categorical_and_a_wide_parameter_are_drawn(search_file: Path, run: RunFolder) -> None:
    config, _ = load_search_config(
        search_file,
        ["space.model.name={type: categorical, choices: [sg_former_pico, sg_former_b0]}"],
    )
    write_report(run, config, make_study(config, run, ["COMPLETE"] * 4))
    dimensions = data_of(run, "figure-parallel")["data"][0]["dimensions"]
    by_label = {one["label"]: one for one in dimensions}
    assert "sg_former_pico" in by_label["model.name"]["ticktext"]
    assert set(by_label) == {*config.space, "val_top1"}
