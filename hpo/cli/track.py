"""The command that sends a run to trackers: track."""

from hpo.cli.options import Mlflow, RunDir, Storage, TensorBoard, Wandb, open_run, with_tracking
from hpo.cli.output import print_note, print_rows
from sgformer.errors import InputError


def track(
    run_dir: RunDir,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
    wandb: Wandb = False,
    storage: Storage = None,
) -> None:
    """Sends what a tracker lacks of a run, over which no search works; by default to the run's."""
    from hpo.config.tracking import TrackingConfig
    from hpo.tracking.tracked_search import check_trackers, send_run

    run = open_run(run_dir, storage)
    config = run.config
    if tensorboard or mlflow or wandb:
        config = with_tracking(
            config.model_copy(update={"tracking": TrackingConfig()}),
            tensorboard=tensorboard, mlflow=mlflow, wandb=wandb,
        )  # fmt: skip
    if not any((config.tracking.tensorboard, config.tracking.mlflow, config.tracking.wandb)):
        raise InputError("name a tracker: --tensorboard, --mlflow URI or --wandb")
    with run.folder.locked(print_note):
        check_trackers(config, run.folder)
        names = send_run(run, config)
    print_rows({"sent to": ", ".join(names)})
