"""Frozen weights of a fine-tuning: which they are, and when they join the training.

A frozen parameter has no gradient, so that AdamW neither changes it nor keeps a state for it. All
parameters are in the optimizer's groups from the start, so their numbers, by which a checkpoint
names the optimizer's state, do not change when frozen ones join.

A module whose parameters are all frozen is in eval mode, with all that it contains: statistics of
BatchNorm stay, and dropout and stochastic depth are off. So frozen stages compute the same
features of an image as in evaluation.
"""

from torch import nn

from sgformer.config import TrainConfig
from sgformer.model.stages import frozen_names


class Freezing:
    """Sets a model's modules to training or eval mode, and its parameters to trained or frozen.

    Raises:
        ConfigError: The model does not have as many stages as `freeze` says.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._model, self._unfreeze_epoch = model, config.unfreeze_epoch
        names = frozen_names(model, config.model.name, config.freeze)
        self._parameters = [p for name, p in model.named_parameters() if name in names]
        self._modules = list(_modules_within(model, names)) if names else []

    def begin_epoch(self, epoch: int) -> bool:
        """Prepares the model for an epoch, counted from 1.

        Returns:
            Whether other parameters are trained than before.
        """
        is_frozen = self._unfreeze_epoch is None or epoch < self._unfreeze_epoch
        self._model.train()
        if is_frozen:
            for module in self._modules:
                module.eval()
        has_changed = any(p.requires_grad is is_frozen for p in self._parameters)
        for parameter in self._parameters:
            parameter.requires_grad_(not is_frozen)
        return has_changed


def _modules_within(model: nn.Module, names: frozenset[str]) -> list[nn.Module]:
    """The largest modules that have parameters or buffers, all of them among the names."""
    found, covered = [], ""
    for prefix, module in model.named_modules():  # a module comes before those within it
        if covered and f"{prefix}.".startswith(covered):
            continue
        own = [n for n, _ in (*module.named_parameters(prefix), *module.named_buffers(prefix))]
        if own and names.issuperset(own):
            found.append(module)
            covered = f"{prefix}."
    return found
