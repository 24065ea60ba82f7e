"""Retrains a trial's configuration at full length and delivers the model of the best epoch."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.delivery.combined import Made, combined_with_others
from hpo.delivery.deliver import Beside, More, deliver
from hpo.delivery.evaluation import Evaluated, evaluate_and_charge
from hpo.delivery.forgetting import told_of
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError
from hpo.execution.cluster import TrialResources
from hpo.execution.gpu_share import resources_for
from hpo.execution.placement import PlacementWatch
from hpo.execution.retrain import retrain_all_on_cluster, retrain_epochs
from hpo.execution.training import BEST, Training
from hpo.run import Run
from hpo.run_folder import discard
from hpo.run_store import store_of
from hpo.run_teachers import teachers_of
from hpo.run_weights import weights_of
from hpo.selection.finalists import retrain_config, training_name
from hpo.study.trial import TrialSummary
from sgformer.data.image_cache import ImagesId


def retrain_and_deliver(
    run: Run,
    trial: TrialSummary,
    observer: SearchObserver,
    images: ImagesId | None = None,
    resources: TrialResources | None = None,
    folder: Path | None = None,
    *,
    combines: bool = False,
) -> None:
    """Trains the trial's configuration on the first fresh seed and delivers the model.

    An interrupted training, or one that a finalist began, is resumed from its checkpoint.

    Args:
        run: The trial's run.
        trial: Any trial, also a stopped or paused one.
        observer: Is told of each epoch.
        images: Identifies the images of the search; None: any images are accepted.
        resources: CPUs, GPUs and processes of the training on the connected Ray cluster; None:
            this process trains.
        folder: The folder for the model's files; None: the run's best/.
        combines: Whether the soup or ensemble that `retrain.deliver` asks for is delivered in the
            model's place, if that is better.

    Raises:
        RunError: The training diverged in its first epoch, or its checkpoint is missing.
    """
    train = retrain_config(run.config, trial.params)
    resources = None if resources is None else resources_for(train, resources)
    observer.phase(f"retraining trial {trial.number}")
    name = training_name(trial.number, train)
    place, store = run.folder.retraining.absolute() / name, store_of(run.config, run.folder)
    training = Training(
        train,
        place,
        images,
        weights=weights_of(run.folder, train.model),
        teachers=teachers_of(run.folder, train),
        mark=run.folder.mark(),
        store=None if resources is None else store,
    )
    if store is not None and resources is None:  # what a finalist began on a node
        store.bring(training.name, place)
    training = training.with_known_epochs()
    rows = _train_and_charge(run, trial, name, training, observer, resources)
    if training.store is not None:
        training.store.bring(training.name, place)
    checkpoint = place / BEST
    if not checkpoint.exists():
        raise RunError(_without_a_model(run, trial, checkpoint, rows, train.metric))
    made = None
    if combines and run.config.retrain.deliver != "winner":
        made = combined_with_others(run, trial, training, observer, images, resources)
        training = made.training
    observer.phase("evaluating on val and test")
    best = folder or run.folder.best
    found = evaluate_and_charge(
        run, trial.number, training, observer, images, resources,
        keeps_exemplars=best == run.folder.best,
    )  # fmt: skip
    assert found.metrics is not None, "the evaluation has come to its end"
    if found.forgetting is not None:
        observer.note(f"the extension forgets {found.forgetting.in_words()}")
        found.forgetting.refuse_more_than(
            run.config.extension.max_forgetting, train.extension.base
        )
    observer.phase("exporting to ONNX and checking it")
    deliver(
        best,
        training.folder / BEST,
        found.metrics,
        images,
        run.config.retrain.proof_images,
        run.config.train.data,
        run.config.export,
        _more(run, training, found, made, checkpoint, _seconds(rows)),
    )
    if folder in (None, run.folder.best):
        run.study.metadata.delivered_trial = trial.number
    discard_trainings(run)


def _more(
    run: Run,
    training: Training,
    found: Evaluated,
    made: Made | None,
    winner: Path,
    seconds: float | None,
) -> More:
    """What is delivered beside the model.

    Args:
        run: The run.
        training: The training whose weights are delivered.
        found: What the evaluation has found.
        made: What became of the soup or ensemble; None: none was asked for.
        winner: The checkpoint of the winner's training.
        seconds: How long that took; None: not known.
    """
    rivals = {"teacher": tuple(one.path for one in training.teachers)} if found.teacher else {}
    if made is not None and made.combination.is_delivered:
        rivals["winner alone"] = (winner,)
    lost, config = found.forgetting, training.config
    return More(
        pictures=found.pictures,
        kept=found.kept,
        keep_bytes=run.config.extension.keep_bytes,
        extension=None if lost is None else told_of(lost, config, seconds),
        beside=Beside(None if made is None else made.combination, found.teacher, rivals),
    )


def _seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """How long the epochs took; None: an earlier process trained some of them."""
    return sum(float(row["seconds"]) for row in rows) if rows else None


def discard_trainings(run: Run) -> None:
    """Deletes the checkpoints of trainings after the search, of which none is needed any more."""
    store = store_of(run.config, run.folder)
    if store is not None:
        store.discard(run.folder.retraining.name)
    discard(run.folder.retraining)


def _train_and_charge(
    run: Run,
    trial: TrialSummary,
    name: str,
    training: Training,
    observer: SearchObserver,
    resources: TrialResources | None,
) -> list[Mapping[str, Any]]:
    """Trains, charges epochs and seconds to the study's budget; returns the rows of all epochs."""
    begin = time.monotonic()
    # The epochs of a finalist's training are charged already, if its folder still exists.
    num_charged = int(run.study.metadata.fresh_trainings.get(name, {}).get("num_epochs", 0))
    num_charged = min(num_charged, training.num_begun())
    rows = _train(run, training, observer, resources)
    num_epochs = training.num_begun() - num_charged
    if num_epochs and rows:
        seconds = num_epochs * statistics.fmean(float(row["seconds"]) for row in rows)
        num_gpus = 1.0 if resources is None else resources.gpus * resources.num_processes
        run.study.metadata.add_retraining(trial.number, num_epochs, seconds, num_gpus)
        run.study.metadata.seconds_searched += time.monotonic() - begin
    return rows


def _train(
    run: Run, training: Training, observer: SearchObserver, resources: TrialResources | None
) -> list[Mapping[str, Any]]:
    """Trains to the end and tells the observer of each epoch; returns the rows of all epochs."""
    if resources is None:
        epochs = retrain_epochs(training)
    else:
        epochs = _epochs_on_cluster(run, training, observer, resources)
    rows: dict[int, Mapping[str, Any]] = {}  # a training that lost its node tells epochs again
    for row in epochs:
        rows[row["epoch"]] = row
        observer.retrain_epoch(row, training.config.max_epochs)
        if math.isnan(row["val_loss"]):
            observer.note(f"the retraining diverged in epoch {row['epoch']}")
    return list(rows.values())


def _epochs_on_cluster(
    run: Run, training: Training, observer: SearchObserver, resources: TrialResources
) -> Iterator[dict[str, Any]]:
    watch = PlacementWatch(run.config.resources, observer.note)
    max_retries = run.config.study.max_retries
    for _, said in retrain_all_on_cluster([training], [resources], max_retries, watch):
        if isinstance(said, dict):
            yield said
        elif said is not None:
            raise said


def _without_a_model(
    run: Run,
    trial: TrialSummary,
    checkpoint: Path,
    rows: Sequence[Mapping[str, Any]],
    metric: str,
) -> str:
    """The error message for a training that has left no checkpoint."""
    if rows and all(math.isnan(row[metric]) for row in rows):
        return (
            f"the retraining of trial {trial.number} diverged in its first epoch; retrain another "
            f"with `retrain {run.folder.path} --trial N`"
        )
    return (
        f"the retraining of trial {trial.number} has ended after {len(rows)} epochs, but its "
        f"checkpoint is not there: no file {checkpoint}; the run folder must be one that this "
        "process and every node of the cluster share (--output-dir)"
    )
