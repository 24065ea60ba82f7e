"""How a model computes: number types, memory layout, and activations that are computed anew."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import nn

from sgformer.catalog import model_facts
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

Precision = Literal["float32", "bf16", "fp16"]
DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
# A block of ConvNeXt has a convolution and two linear layers; MLP-Mixer's has linear layers only.
MOST_LINEAR_LAYERS: Final = 2
ATTENTION: Final = re.compile(r"Attn|Attention")


@dataclass(frozen=True)
class Numerics:
    """The number type and memory layout of a training, with `auto` resolved for its device.

    Attributes:
        device: The device of the training.
        precision: Number type of forward and backward pass, and of validation.
        channels_last: Whether images and convolutions are channels-last in memory.
    """

    device: torch.device
    precision: Precision = "float32"
    channels_last: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory layout of batches of images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """A context in which a model's forward pass computes in this precision."""
        dtype = DTYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def new_scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, which does nothing unless the precision is fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def choose_numerics(config: TrainConfig, model: nn.Module, device: torch.device) -> Numerics:
    """The configured numerics, with `auto` resolved for the model and the device."""
    precision, channels_last = config.precision, config.channels_last
    on_gpu = device.type == "cuda"
    if precision == "auto":
        precision = "bf16" if on_gpu and _has_bf16() else "float32"
    if channels_last == "auto":
        channels_last = on_gpu and is_convolutional(model)
    return Numerics(device, precision, channels_last)


def is_convolutional(model: nn.Module) -> bool:
    """Whether a model has no attention, and a convolution for every two of its linear layers."""
    modules = list(model.modules())
    num_convolutions = sum(isinstance(m, nn.Conv2d) for m in modules)
    num_linear = sum(isinstance(m, nn.Linear) for m in modules)
    has_attention = any(ATTENTION.search(type(m).__name__) for m in modules)
    return not has_attention and num_linear <= MOST_LINEAR_LAYERS * num_convolutions


def allow_tf32(device: torch.device) -> None:
    """Lets this process's float32 matrix products and convolutions on a GPU use TF32."""
    if device.type == "cuda":
        _set_float32("tf32")


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """A context in which float32 products on a GPU are computed in float32, not in TF32."""
    cudnn: Any = torch.backends.cudnn
    before = torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision
    _set_float32("ieee")
    try:
        yield
    finally:
        _set_float32(*before)


def checkpoint_gradients(model: nn.Module, name: str) -> None:
    """Makes the backward pass compute activations anew in place of keeping them in memory.

    Raises:
        ConfigError: The model cannot do that.
    """
    if not model_facts(name).has_grad_checkpointing:
        raise ConfigError(
            f"grad_checkpointing: {name} has none; leave train.grad_checkpointing at false, and "
            "lower train.optimizer.micro_batch_size to save memory"
        )
    model.set_grad_checkpointing(True)  # type: ignore[operator]


def _has_bf16() -> bool:
    """Whether the GPU computes bf16 in hardware, which GPUs before Ampere emulate."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _set_float32(matmul: str, convolution: str | None = None) -> None:
    cudnn: Any = torch.backends.cudnn
    torch.backends.cuda.matmul.fp32_precision = matmul
    # By themselves: operations that were once set so do not follow cudnn.fp32_precision.
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = convolution or matmul
