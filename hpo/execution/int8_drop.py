"""Measures what a training's model loses in 8-bit integers, when the training has ended."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hpo.config.schema import SearchConfig
from hpo.execution.own_folder import TrainingFolder
from hpo.execution.saver import Progress
from hpo.study.trial import EndReason

if TYPE_CHECKING:
    from sgformer.training.trainer import Trainer

INT8_DROP: Final = "int8_top1_drop"


def int8_images(config: SearchConfig) -> int | None:
    """On how many val images, at most, a search measures the drop; None: it does not."""
    return config.retrain.proof_images if INT8_DROP in config.study.trial_costs else None


def with_int8_drop(
    progress: Progress, trainer: "Trainer", folder: TrainingFolder, num_images: int | None
) -> Progress:
    """The progress; that of a training's end also tells the drop of its best epoch's weights.

    A training that the search stops has none, so that stopping stays cheap. The drop is in the
    last epoch's row and among the facts.

    Args:
        progress: The progress, whose checkpoint is durable.
        trainer: The training.
        folder: Holds the weights of the best epoch.
        num_images: On how many val images, at most, the drop is measured; None: it is not.

    Raises:
        ExportError: The model cannot be exported.
    """
    from sgformer.optimization.distributed import rank

    has_ended = progress.end_reason in {EndReason.COMPLETED, EndReason.EARLY_STOPPED}
    if num_images is None or not has_ended or rank() != 0:
        return progress
    from sgformer.export.int8 import int8_top1_drop
    from sgformer.model.build import create_model
    from sgformer.training.checkpoint_file import load_checkpoint

    config, data = trainer.config, trainer.data
    model = create_model(config, len(data.classes))
    model.load_state_dict(load_checkpoint(folder.path / "best.safetensors")[0])
    drop = {INT8_DROP: int8_top1_drop(model, config, data, num_images)}
    *rows, last = progress.epochs
    return replace(progress, epochs=(*rows, last | drop), facts=progress.facts | drop)
