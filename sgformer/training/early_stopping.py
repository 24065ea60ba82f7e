"""Early stopping: ends a training that no longer improves."""

import math
from dataclasses import dataclass

from sgformer.config import EarlyStoppingConfig, maximises


@dataclass
class EarlyStopping:
    """Follows one metric over the epochs. Checkpoints keep all attributes but `config`.

    Attributes:
        config: The metric, and the limits.
        best_value: Best value so far, even if it improved by less than `min_delta`.
        best_epoch: Epoch of the best value, from 1; of those that share it, the last one. 0 before
            the first epoch.
        reference_value: The value that an epoch must beat by more than `min_delta` to restart the
            patience.
        num_epochs_without_gain: Epochs since `reference_value`, warm-up epochs not counted.
    """

    config: EarlyStoppingConfig
    best_value: float | None = None
    best_epoch: int = 0
    reference_value: float | None = None
    num_epochs_without_gain: int = 0

    def update(self, epoch: int, value: float) -> bool:
        """Records an epoch's value; returns whether none was better so far."""
        if self._beats(value, self.reference_value, self.config.min_delta):
            self.reference_value = value
            self.num_epochs_without_gain = 0
        elif epoch > self.config.warmup_epochs:
            self.num_epochs_without_gain += 1
        if value != self.best_value and not self._beats(value, self.best_value, 0.0):
            return False
        self.best_value, self.best_epoch = value, epoch
        return True

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        patience = self.config.patience
        return patience is not None and self.num_epochs_without_gain >= patience

    def state_dict(self) -> dict[str, float | int | None]:
        return {
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "reference_value": self.reference_value,
            "num_epochs_without_gain": self.num_epochs_without_gain,
        }

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])

    def _beats(self, value: float, than: float | None, by: float) -> bool:
        if math.isnan(value):
            return False
        if than is None:
            return True
        gain = value - than if maximises(self.config.metric or "val_top1") else than - value
        return gain > by
