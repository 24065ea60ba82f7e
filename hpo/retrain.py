"""The winner's full-length training, by the trainer that trained it as a trial."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.cluster import TrialResources
from hpo.config import SearchConfig
from hpo.errors import RunError
from hpo.search_space import Params, apply_params
from sgformer.config import TrainConfig


def retrain_config(config: SearchConfig, params: Params) -> TrainConfig:
    """The winner's configuration at full length, on a seed that no trial has seen."""
    train = apply_params(config.train, params, "the winner's params")
    train = train.with_epochs(config.retrain.max_epochs or train.max_epochs)
    device = "cpu" if config.resources.gpus_per_trial == 0 else train.device
    return train.model_copy(update={"seed": train.seed + 1, "device": device})


def retrain_epochs(config: TrainConfig, folder: Path) -> Iterator[dict[str, Any]]:
    """Trains in this process, resuming what `folder` holds; yields each epoch's row.

    Args:
        config: What to train.
        folder: Gets best.safetensors, last.safetensors and epochs.csv.
    """
    from sgformer.checkpoint import resume_progress, save_progress
    from sgformer.decoded_images import load_image_data
    from sgformer.trainer import Trainer

    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, load_image_data(config.data))
    resume_progress(trainer, folder)
    yield from (metrics.as_row() for metrics in trainer.history)
    for metrics in trainer.epochs():
        save_progress(trainer, folder)
        yield metrics.as_row()


def retrain_epochs_on_cluster(
    config: TrainConfig, folder: Path, resources: TrialResources
) -> Iterator[dict[str, Any]]:
    """As `retrain_epochs`, in one process on the connected Ray cluster.

    Raises:
        RunError: It broke there, or its process died.
    """
    import ray

    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(retrain_epochs)
    references: Any = task.remote(config, folder)  # a generator of them
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
