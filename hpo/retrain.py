"""The winner's full-length training, by the trainer that trained it as a trial."""

from collections.abc import Iterator
from typing import Any

from hpo.cluster import TrialResources
from hpo.config import SearchConfig
from hpo.errors import RunError
from hpo.group_training import run_group_training
from hpo.search_space import Params, apply_params
from hpo.training import Training, run_training
from sgformer.config import TrainConfig


def retrain_config(config: SearchConfig, params: Params) -> TrainConfig:
    """The winner's configuration at full length, on a seed that no trial has seen."""
    train = apply_params(config.train, params, "the winner's params")
    if config.retrain.max_epochs not in (None, train.max_epochs):
        train = train.with_epochs(config.retrain.max_epochs)
    device = "cpu" if config.resources.gpus_per_trial == 0 else train.device
    return train.model_copy(update={"seed": train.seed + 1, "device": device})


def retrain_epochs(training: Training) -> Iterator[dict[str, Any]]:
    """Trains in this process, resuming what the folder holds; yields each epoch's row."""
    training.folder.mkdir(parents=True, exist_ok=True)
    for progress in run_training(training):
        for row in progress.epochs:  # noqa: UP028  Ray sends to what it runs; a tuple takes nothing
            yield row


def retrain_epochs_on_cluster(
    training: Training, resources: TrialResources
) -> Iterator[dict[str, Any]]:
    """As `retrain_epochs`, on the connected Ray cluster, by as many processes as a trial has.

    Raises:
        RunError: It broke there, or a process died.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    if resources.group is not None:
        for progress in run_group_training(training, resources.group):
            yield from progress.epochs
        return
    import ray

    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(retrain_epochs)
    references: Any = task.remote(training)  # a generator of them
    try:
        for reference in references:
            row: dict[str, Any] = ray.get(reference)
            yield row
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = str(cause).strip().splitlines()[0]
        raise RunError(
            f"the retraining broke on the cluster: {reason}; --resume retries"
        ) from error
