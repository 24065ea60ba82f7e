"""Studies for tests of reports, and the pages of reports."""

import base64
import gzip
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studies import create_study

from hpo.config.schema import RetrainConfig, SearchConfig
from hpo.run_folder import RunFolder
from hpo.selection.finalists import Finalists, asked_for, training_name, trainings_of
from hpo.selection.verdict import FreshTraining
from hpo.study.study import SearchStudy


def make_study(config: SearchConfig, run: RunFolder, states: list[str]) -> SearchStudy:
    """A study with one trial per state; later trials have better values."""
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
    """report.html without its scripts and their data."""
    text = run.report.read_text()
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def embedded(page: Path, name: str) -> str | None:
    """The text of a script element of a page, as the page's own script reads it; None: none."""
    found = re.search(rf"<script type='([^']+)' id='{name}'>(.*?)</script>", page.read_text())
    if found is None:
        return None
    if found[1] == "application/gzip":
        return gzip.decompress(base64.b64decode(found[2])).decode()
    return found[2]


def data_of(run: RunFolder, name: str) -> Any:
    """The data of a table of report.html, or of a figure; None: there is no such one."""
    text = embedded(run.report, name)
    return None if text is None else json.loads(text)


def figures_of(run: RunFolder) -> dict[str, Any]:
    """All figures of report.html: data and layout by name."""
    names = re.findall(r"data-figure='figure-([^']+)'", run.report.read_text())
    return {name: data_of(run, f"figure-{name}") for name in names}


def compare(config: SearchConfig, study: SearchStudy, values: dict[int, list[float]]) -> None:
    """Stores values of finalists on fresh seeds, as if they had been trained."""
    trials = study.trials()
    config = config.model_copy(update={"retrain": RetrainConfig(seeds=2, max_share=None)})
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
