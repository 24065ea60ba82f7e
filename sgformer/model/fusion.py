"""Late fusion: a vector of features joins an image's pooled features before the head.

Any classifier of timm or SG-Former gets a part `feature_fusion`. All other tensors keep their
names, so that pretrained weights, freezing and layer decay work as without it.
"""

from typing import Final

import torch
from torch import Tensor, nn

from sgformer.catalog import model_facts, on_no_linear_head
from sgformer.config import FusionConfig
from sgformer.errors import ConfigError

NAME: Final = "feature_fusion"
# The gate begins at sigmoid(-2) = 0.12: the head sees the image nearly as it would alone.
FIRST_GATE: Final = -2.0


class FeatureFusion(nn.Module):
    """A gate that mixes an image's pooled features with projected features.

    The gated multimodal unit of Arevalo et al., arXiv:1702.01992, equation 1, without the tanh of
    the image: so the head sees the backbone's own features where the gate is shut. A modality that
    is missing, or dropped in training, is replaced by a learnt vector. Features are standardised
    here, so an exported model takes them as the table has them.

    Args:
        config: Size and dropout.
        size: Numbers of a vector of features.
        pooled: Numbers of an image's pooled features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: FusionConfig, size: int, pooled: int) -> None:
        super().__init__()
        self.size, self.modality_dropout = size, config.modality_dropout
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.project = nn.Sequential(
            nn.Linear(size, config.dim), nn.LayerNorm(config.dim), nn.GELU(),
            nn.Dropout(config.dropout), nn.Linear(config.dim, pooled),
        )  # fmt: skip
        self.gate = nn.Linear(2 * pooled, pooled)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, FIRST_GATE)
        self.no_image = nn.Parameter(torch.zeros(pooled))
        self.no_features = nn.Parameter(torch.zeros(pooled))

    def forward(self, image_BP: Tensor, features_BD: Tensor, lacks_image_B1: Tensor) -> Tensor:
        """The mixed features (B, P).

        Args:
            image_BP: Pooled features of the images.
            features_BD: Features as the table has them; a row with NaN is missing.
            lacks_image_B1: Which rows have no image.
        """
        lacks_features_B1 = features_BD.isnan().any(1, keepdim=True)
        if self.training and self.modality_dropout:
            drawn_B1 = torch.rand(len(image_BP), 1, device=image_BP.device)
            both_B1 = ~(lacks_image_B1 | lacks_features_B1)
            half = self.modality_dropout / 2
            lacks_image_B1 = lacks_image_B1 | (both_B1 & (drawn_B1 < half))
            lacks_features_B1 = lacks_features_B1 | (both_B1 & (drawn_B1 >= 1 - half))
        standard_BD = torch.where(lacks_features_B1, 0.0, (features_BD - self.mean) / self.std)
        told_BP = torch.where(lacks_features_B1, self.no_features, self.project(standard_BD))
        seen_BP = torch.where(lacks_image_B1, self.no_image, image_BP)
        gate_BP = self.gate(torch.cat([seen_BP, told_BP], 1)).sigmoid()
        mixed_BP: Tensor = (1 - gate_BP) * seen_BP + gate_BP * told_BP
        return mixed_BP


class _Fused(nn.Module):
    """Mixed into a model's class; its forward pass takes features beside the images."""

    def forward(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        """The logits, (B, classes).

        Args:
            images: (B, 3, H, W); an image whose first number is NaN is missing.
            features: (B, size) as the table has them, a row with NaN is missing; None: all are.
        """
        fusion: FeatureFusion = getattr(self, NAME)
        if features is None:
            features = images.new_full((len(images), fusion.size), torch.nan)
        lacks_B1 = images[:, 0, 0, :1].isnan()
        whole = torch.where(lacks_B1[:, :, None, None], 0.0, images)
        pooled = self.forward_head(self.forward_features(whole), pre_logits=True)  # type: ignore[operator]
        logits: Tensor = self.get_classifier()(fusion(pooled, features, lacks_B1))  # type: ignore[operator]
        return logits


def with_fusion(model: nn.Module, config: FusionConfig, name: str) -> nn.Module:
    """The model, which takes features too; it keeps its class, and its tensors their names.

    Raises:
        ConfigError: The model's head is not one linear layer.
    """
    assert config.num_features is not None, "the features are known"
    if not model_facts(name).has_linear_head:
        raise ConfigError(f"model.name: {on_no_linear_head(name)}")
    head: nn.Linear = model.get_classifier()  # type: ignore[operator]
    setattr(model, NAME, FeatureFusion(config, config.num_features, head.in_features))
    own = type(model)
    model.__class__ = type(own.__name__, (_Fused, own), {"__module__": own.__module__})
    return model


def is_fused(model: nn.Module) -> bool:
    """Whether a model takes features beside images."""
    return isinstance(model, _Fused)


def num_features(model: nn.Module) -> int:
    """How many numbers a fused model takes beside an image."""
    fusion: FeatureFusion = getattr(model, NAME)
    return fusion.size


def set_scaling(model: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Sets what features are standardised by, (size,) each."""
    fusion: FeatureFusion = getattr(model, NAME)
    fusion.mean.copy_(mean)
    fusion.std.copy_(std)
