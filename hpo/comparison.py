"""Trains the finalists on fresh seeds, several at a time, and tells the study what they reach."""

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpo.cluster import TrialResources
from hpo.config import SearchConfig
from hpo.finalists import (
    Finalists,
    asked_for,
    choose_finalists,
    predicted_ranking,
    read_finalists,
    training_name,
    trainings_of,
)
from hpo.progress import SearchObserver
from hpo.retrain import retrain_all_on_cluster
from hpo.run_folder import RunFolder
from hpo.study import SearchStudy
from hpo.training import Training
from hpo.verdict import FreshTraining
from sgformer.config import Metric, TrainConfig, maximises
from sgformer.decoded_images import ImagesId


@dataclass(frozen=True)
class SearchedImages:
    """The images of a search.

    Attributes:
        id: Theirs.
        facts: What the study says of them.
        fold_ratio: Val images for each training image, where val is split off train.
    """

    id: ImagesId
    facts: dict[str, Any]
    fold_ratio: float | None


def compare_finalists(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    images: SearchedImages,
    resources: TrialResources,
    observer: SearchObserver,
) -> None:
    """Chooses the finalists, unless they are known, and trains them on the connected Ray.

    A training that was interrupted goes on; one that is in the study is not repeated. The first
    seed's stay in the run's `retraining` folder: the winner's is the one that is delivered.

    Raises:
        RunError: A training broke more often than a trial may.
    """
    finalists = _choose(config, study, images)
    done = study.fresh_trainings
    all_of_them = tuple(trainings_of(config, study.trials(), finalists))
    due = [(n, train) for n, train in all_of_them if training_name(n, train) not in done]
    if not due:
        return
    observer.phase(
        f"comparing {len(finalists.numbers)} finalists on {finalists.asked_for.seeds} fresh seeds"
    )
    trainings = [_training(run, n, train, images.id) for n, train in due]
    curves: list[dict[int, dict[str, Any]]] = [{} for _ in due]
    num_epochs = sum(train.max_epochs for _, train in due)
    first_seed = all_of_them[0][1].seed
    told = retrain_all_on_cluster(trainings, resources, config.study.max_retries)
    for i, row in told:
        number, train = due[i]
        if row is not None:
            curves[i][row["epoch"]] = row
            observer.step(sum(map(len, curves)), num_epochs)
            continue
        ended = fresh_training(number, train, config.study.metric, curves[i].values(), resources)
        study.add_fresh_training(training_name(number, train), asdict(ended))
        observer.finalist_trained(number, ended.seed, ended.value)
        num_epochs -= train.max_epochs - ended.num_epochs
        if train.seed != first_seed:
            shutil.rmtree(trainings[i].folder)


def fresh_training(
    number: int,
    train: TrainConfig,
    metric: Metric,
    rows: Iterable[Mapping[str, Any]],
    resources: TrialResources,
) -> FreshTraining:
    """What is kept of a training, by the rows of its epochs."""
    rows = tuple(rows)
    sign = 1 if maximises(metric) else -1
    known = {int(row["epoch"]): float(row[metric]) for row in rows}
    known = {epoch: value for epoch, value in known.items() if not math.isnan(value)}
    best = max(known, key=lambda epoch: (sign * known[epoch], -epoch), default=None)
    seconds = sum(float(row["seconds"]) for row in rows)
    return FreshTraining(
        trial=number,
        seed=train.seed,
        value=None if best is None else known[best],
        best_epoch=best,
        num_epochs=len(rows),
        max_epochs=train.max_epochs,
        seconds=seconds,
        gpu_seconds=seconds * resources.gpus * resources.num_processes,
    )


def _choose(config: SearchConfig, study: SearchStudy, images: SearchedImages) -> Finalists:
    trials, known = study.trials(), read_finalists(study)
    asked = asked_for(config, trials)
    if known is not None and known.asked_for == asked:
        return known
    ranking = predicted_ranking(config, trials, study.model_state)
    finalists = Finalists(
        numbers=choose_finalists(trials, ranking, config.retrain.top_k),
        asked_for=asked,
        num_val_images=images.facts["val"],
        fold_ratio=images.fold_ratio,
    )
    study.finalists = finalists.model_dump(mode="json")
    return finalists


def _training(run: RunFolder, number: int, train: TrainConfig, images: ImagesId) -> Training:
    return Training(train, run.retraining.absolute() / training_name(number, train), images)
