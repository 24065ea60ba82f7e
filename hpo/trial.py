"""The Ray trainable: the only bridge between the trainer and Ray.

Importing this is cheap; torch comes with the first trial of a worker, which then serves many.
"""

import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from hpo.errors import RunError
from hpo.trial_report import TrialError, TrialReport
from sgformer import __version__
from sgformer.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from sgformer.decoded_images import ImageData
    from sgformer.trainer import EpochMetrics, Trainer

REPORT = "report"


def trial_folder(run_dir: Path, number: int) -> Path:
    """Where a trial's checkpoints and curve lie."""
    return run_dir / "trials" / str(number)


class TrialTrainable(tune.Trainable):
    """Runs trials one after another in a warm process, an epoch a step.

    Ray's config for a trial: `number`, `train` (a TrainConfig as JSON text), `run_dir`, and
    `num_threads`. A trial goes on from the last checkpoint in its folder if there is one. What
    goes wrong in a training is data, told in the report; only a dead process is Ray's business.
    """

    _trainer: "Trainer | None"

    def setup(self, config: dict[str, Any]) -> None:
        self._data: dict[DataConfig, ImageData] = {}
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            report = self._next_report()
        except Exception as error:
            self._trainer = None
            if _is_of_the_process(error):
                raise  # Ray replaces the process and tries again
            failure = TrialError(type(error).__name__, str(error), traceback.format_exc())
            report = TrialReport(
                self._number, (), "failed", {"hostname": socket.gethostname()}, failure
            )
        return {REPORT: report, "number": self._number, "done": report.end_reason is not None}

    def _begin(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        self._config = TrainConfig.model_validate_json(config["train"])
        self._folder = trial_folder(Path(config["run_dir"]), self._number)
        self._num_threads: int = config["num_threads"]
        self._trainer = None
        self._epochs: Iterator[EpochMetrics] = iter(())
        self._num_told = 0
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()  # a GPU may be shared with another trial

    def _next_report(self) -> TrialReport:
        from sgformer.checkpoint import save_progress

        if self._trainer is None:
            self._trainer = self._start_trainer()
            self._epochs = self._trainer.epochs()
        trainer = self._trainer
        # None when the checkpoint is of a finished trial whose last report was lost.
        if next(self._epochs, None) is not None:
            save_progress(trainer, self._folder)
        rows = tuple(metrics.as_row() for metrics in trainer.history[self._num_told :])
        self._num_told = len(trainer.history)
        return TrialReport(self._number, rows, trainer.end_reason, self._facts(trainer))

    def _start_trainer(self) -> "Trainer":
        import torch

        from sgformer.checkpoint import resume_progress
        from sgformer.decoded_images import load_image_data
        from sgformer.trainer import Trainer

        if not self._folder.parent.parent.is_dir():
            raise RunError(
                f"the run folder {self._folder.parent.parent} is not there on "
                f"{socket.gethostname()}: it must be shared by all nodes (--output-dir)"
            )
        torch.set_num_threads(self._num_threads)
        data = self._config.data
        if data not in self._data:
            self._data[data] = load_image_data(data)
        trainer = Trainer(self._config, self._data[data])
        resume_progress(trainer, self._folder)
        return trainer

    def _facts(self, trainer: "Trainer") -> dict[str, Any]:
        last = trainer.history[-1]
        return {
            "config_fingerprint": self._config.fingerprint(),
            "num_parameters": trainer.num_parameters,
            "hostname": socket.gethostname(),
            "device": str(trainer.device),
            "seed": self._config.seed,
            "code_version": __version__,
            "seconds": sum(metrics.seconds for metrics in trainer.history),
            "images_per_second": last.images_per_second,
            "best_epoch": trainer.early_stopping.best_epoch,
            "checkpoint": str(self._folder / "best.safetensors"),
        }


def _is_of_the_process(error: Exception) -> bool:
    """Whether the process is of no more use: a CUDA error other than out of memory stays."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not isinstance(
        error, torch.OutOfMemoryError
    )
