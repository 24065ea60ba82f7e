"""Studies for tests of reports, and the pages of reports."""

import re
from dataclasses import asdict

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
    """report.html without plotly's own script."""
    text = run.report.read_text()
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def compare(config: SearchConfig, study: SearchStudy, values: dict[int, list[float]]) -> None:
    """Stores values of finalists on fresh seeds, as if they had been trained."""
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
