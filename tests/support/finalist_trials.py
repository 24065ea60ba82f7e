"""Studies with ended trials, from which finalists are chosen, and with finalists' trainings."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from studies import create_study

from hpo.config.schema import SearchConfig
from hpo.config.search_space import FloatParameter, Space
from hpo.selection.finalists import Finalists, training_name, trainings_of
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import TrainConfig

SPACE: Space = {
    "optimizer.learning_rate": FloatParameter(type="float", low=1e-4, high=1e-2, log=True),
    "model.drop_rate": FloatParameter(type="float", low=0.0, high=0.5, step=0.05),
}
PARAMS = {"optimizer.learning_rate": 1e-3, "model.drop_rate": 0.25}


def trial(
    number: int,
    curve: Sequence[float],
    state: str = "COMPLETE",
    reason: str = "",
    drop: float = -1,
) -> TrialSummary:
    known = [value for value in curve if not math.isnan(value)]
    return TrialSummary(
        number=number,
        state=state,
        value=max(known) if state == "COMPLETE" else None,
        params=PARAMS | {"model.drop_rate": number / 20 if drop < 0 else drop},
        curve=dict(enumerate(curve, start=1)),
        attributes={"end_reason": reason},
    )


def missing(trial: TrialSummary) -> TrialSummary:
    return dataclasses.replace(trial, constraints={"val_top1 >= 0.95": 0.1})


def finished(
    config: SearchConfig,
    tmp_path: Path,
    values: Sequence[float],
    missed: Sequence[int] = (),
) -> SearchStudy:
    """A study with one COMPLETE trial per value; some trials violate a constraint."""
    study = create_study(f"sqlite:///{tmp_path / 'study.db'}", config)
    for value in values:
        number = study.ask().number
        study.report(number, {1: value})
        constraints = {"val_top1 >= 0.5": 0.1 if number in missed else -0.1}
        facts = {"best_value": value, "num_parameters": 100 * number}
        study.finish(number, "COMPLETE", facts, value, constraints)
    return study


def tell(
    config: SearchConfig, study: SearchStudy, finalists: Finalists, values: dict[int, float]
) -> None:
    """Tells the study the finalists' trainings, each with its value."""
    for number, train in trainings_of(config, study.trials(), finalists):
        tell_one(study, number, train, values[number])


def tell_one(study: SearchStudy, number: int, train: TrainConfig, value: float) -> None:
    """Tells the study a training on a fresh seed."""
    study.metadata.add_fresh_training(
        training_name(number, train),
        {
            "trial": number, "seed": train.seed, "value": value, "best_epoch": 4,
            "num_epochs": 4, "max_epochs": 4, "seconds": 1.0, "gpu_seconds": 0.0,
        },
    )  # fmt: skip
