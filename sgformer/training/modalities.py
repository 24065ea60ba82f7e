"""What a model that takes features says of images alone, and of features alone."""

from dataclasses import asdict
from typing import Any, Final

import torch
from torch import nn

from sgformer.data.fused_input import FusedInput, Given, each, variants
from sgformer.optimization.numerics import Numerics
from sgformer.training.counts import Counts
from sgformer.training.evaluation import predicted_logits

IMAGE_ALONE: Final = "image_alone"
FEATURES_ALONE: Final = "features_alone"


class ModalityCounts:
    """Counts a split's predictions from each modality alone; of plain images it counts nothing.

    Features alone are judged on the images that have features.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._counts = {
            name: Counts(num_classes, device) for name in (IMAGE_ALONE, FEATURES_ALONE)
        }
        self._num = dict.fromkeys(self._counts, 0)

    def add(self, model: nn.Module, given: Given, labels: torch.Tensor, to: Numerics) -> None:
        """Counts a batch: its images without features, and its features without images."""
        if not isinstance(given, FusedInput):
            return
        _, images, features = variants(given)
        has = ~given.features.isnan().any(1)
        self._add(IMAGE_ALONE, model, images, labels, to)
        if has.any():
            mine = each(features, lambda part: part[has])
            self._add(FEATURES_ALONE, model, mine, labels[has.to(labels.device)], to)

    def _add(
        self, name: str, model: nn.Module, given: FusedInput, labels: torch.Tensor, to: Numerics
    ) -> None:
        for logits, true in predicted_logits(model, [(given, labels)], to):
            self._counts[name].add(logits, true)
            self._num[name] += len(true)

    def metrics(self) -> dict[str, Any]:
        """Scores by modality, as metrics.json has them; none of a modality without images."""
        return {
            name: asdict(counts.scores())
            for name, counts in self._counts.items()
            if self._num[name]
        }
