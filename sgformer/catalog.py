"""What is known of each model by its name: arguments, preprocessing, image sizes.

SG-Former's own models are answered for without importing torch or timm. Any other name is looked
up in timm's registry, and its model is built once on a machine, on PyTorch's meta device, where
parameters take no memory.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from sgformer.errors import ConfigError
from sgformer.kept_facts import keep, recall
from sgformer.validation import nearest_known

if TYPE_CHECKING:
    from torch import nn

MODEL_NAMES: Final = (
    "sg_former_pico",
    "sg_former_nano",
    "sg_former_micro",
    "sg_former_b0",
    "sg_former_b1",
    "sg_former_b2",
    "sg_former_b3",
    "sg_former_b4",
    "sg_former_b5",
    "sg_former_s",
    "sg_former_m",
    "sg_former_b",
)
STRIDE: Final = 32  # the sides of SG-Former's images are multiples of this many pixels
RATES: Final = ("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
INTERPOLATIONS: Final = ("bicubic", "bilinear")
# Image sizes are multiples of one of these patch sizes or strides, if of any.
STEPS: Final = (32, 16, 14)

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a model's images are prepared.

    Attributes:
        mean: Mean of each colour channel, 0..1.
        std: Standard deviation of each colour channel (of values 0..1).
        interpolation: How images are resized: 'bicubic' or 'bilinear'.
        crop_pct: Share of the resized image's shorter side that evaluation crops.
    """

    mean: Rgb = (0.485, 0.456, 0.406)
    std: Rgb = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


@dataclass(frozen=True)
class ModelFacts:
    """What a model takes, and how it was trained.

    Attributes:
        rates: The dropout rates, of those in `RATES`, that the model takes.
        takes_img_size: Whether the model is built for one image size, with timm's `img_size`.
        image_size: Side in pixels of the images that the model was made for.
        has_weights: Whether timm knows where to download pretrained weights.
        has_batch_norm: Whether the model has BatchNorm, which takes statistics of micro-batches.
        has_grad_checkpointing: Whether the model can compute activations anew in backward passes.
        has_linear_head: Whether one linear layer makes the logits of pooled features, before which
            other features can join them.
        preprocessing: The preprocessing of the pretrained weights.
    """

    rates: frozenset[str] = frozenset(RATES)
    takes_img_size: bool = True
    image_size: int = 224
    has_weights: bool = False
    has_batch_norm: bool = False
    has_grad_checkpointing: bool = True
    has_linear_head: bool = True
    preprocessing: Preprocessing = Preprocessing()


def is_ours(name: str) -> bool:
    """Whether the model is an SG-Former; the others are timm's."""
    return name in MODEL_NAMES


@functools.cache
def check_known(name: str) -> None:
    """Checks that timm, or this package, has a model of this name.

    Raises:
        ConfigError: There is no such model, or timm has no such weights (the tag behind the dot).
    """
    if is_ours(name) or _recalled(name) is not None:
        return
    bare = name.replace(":", "/").rpartition("/")[2]
    if bare != name:
        raise ConfigError(
            f"a model's name has no prefix such as 'timm/' or 'hf-hub:', got {name!r}; write "
            f"timm's own name, such as {bare or 'resnet18'!r}"
        )
    import timm

    base, dot, tag = name.partition(".")
    if not timm.is_model(base):
        known = (*MODEL_NAMES, *timm.list_models())
        raise ConfigError(f"no such model: {name!r}; {nearest_known(base, known)}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if dot and tag not in tags:
        tagged = ", ".join(f"{base}.{tag}" for tag in tags if tag)
        raise ConfigError(
            f"no such weights: {name!r}; timm has {tagged or f'no weights of {base} with a tag'}"
        )


@functools.cache
def model_facts(name: str) -> ModelFacts:
    """The facts about a model, found out once on a machine; see kept_facts.py.

    Raises:
        ConfigError: timm has no such model, or the model does not classify images.
    """
    if is_ours(name):
        return ModelFacts()
    if (kept := _recalled(name)) is not None:
        return kept
    facts = _find_out(name)
    keep(json.dumps(dataclasses.asdict(facts), default=sorted), name)
    return facts


def _recalled(name: str) -> ModelFacts | None:
    """The facts that were kept."""
    try:
        return TypeAdapter(ModelFacts).validate_json(recall(name) or "")
    except ValidationError:  # nothing, or nothing of ours
        return None


def _find_out(name: str) -> ModelFacts:
    check_known(name)
    config = _pretrained_config(name)
    try:
        model = _on_meta(name)
        arguments = _arguments(model)
        facts = ModelFacts(
            rates=frozenset(rate for rate in RATES if _takes(name, rate, arguments)),
            takes_img_size=_takes(name, "img_size", arguments),
            image_size=int(config.input_size[-1]),
            has_weights=bool(config.has_weights),
            has_batch_norm=_has_batch_norm(model),
            has_grad_checkpointing=_has_grad_checkpointing(model),
            has_linear_head=_has_linear_head(model, int(config.input_size[-1])),
            preprocessing=_preprocessing(config),
        )
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"timm cannot build {name!r} as a classifier: {reason[0]}") from None
    if not _classifies(name, facts, facts.image_size):
        raise ConfigError(f"{name!r} is no classifier of images: it gives no logits of an image")
    return facts


def check_image_size(name: str, pixels: int) -> None:
    """Checks that the model takes square images with this side.

    Raises:
        ConfigError: It does not; the message has sizes that it takes.
    """
    if is_ours(name):
        if pixels < STRIDE or pixels % STRIDE:
            low = max(STRIDE, pixels // STRIDE * STRIDE)
            raise ConfigError(
                f"must be a multiple of {STRIDE} pixels, got {pixels}; nearest: {low} and "
                f"{low + STRIDE}"
            )
        return
    facts = model_facts(name)
    if not _takes_images(name, pixels):
        taken = ", ".join(map(str, _nearest_sizes(name, facts, pixels)))
        raise ConfigError(
            f"{name} takes no images of {pixels} pixels; it was made for {facts.image_size}, and "
            f"of the sizes near {pixels} it takes {taken or 'none'}"
        )


def _pretrained_config(name: str) -> Any:
    """Timm's PretrainedCfg of a model and, if the name has one, of a tag."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=False)
    assert config is not None
    return config


def _preprocessing(config: Any) -> Preprocessing:
    interpolation = config.interpolation if config.interpolation in INTERPOLATIONS else "bicubic"
    red, green, blue = map(float, config.mean)
    red_std, green_std, blue_std = map(float, config.std)
    return Preprocessing(
        (red, green, blue), (red_std, green_std, blue_std), interpolation, float(config.crop_pct)
    )


def _on_meta(name: str, **arguments: Any) -> "nn.Module":
    """The model on PyTorch's meta device: shapes without memory."""
    import timm
    import torch

    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, num_classes=7, **arguments)
    return model.eval()


def _arguments(model: "nn.Module") -> frozenset[str] | None:
    """The names of the arguments of the model's class; None if it passes others on unnamed."""
    parameters = inspect.signature(type(model).__init__).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return None
    return frozenset(parameters)


def _has_batch_norm(model: "nn.Module") -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _has_grad_checkpointing(model: "nn.Module") -> bool:
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):  # timm's models assert that they are not asked to
        return False
    return True


def _has_linear_head(model: "nn.Module", pixels: int) -> bool:
    import torch

    find = getattr(model, "get_classifier", None)
    head = None if find is None else find()
    if not isinstance(head, torch.nn.Linear):
        return False
    try:
        seen = model.forward_features(torch.empty(2, 3, pixels, pixels, device="meta"))  # type: ignore[operator]
        logits = head(model.forward_head(seen, pre_logits=True))  # type: ignore[operator]
    except Exception:  # noqa: BLE001  some of timm's models have no such parts
        return False
    return tuple(logits.shape) == (2, 7)


def on_no_linear_head(name: str) -> str:
    """The message that a model takes no features beside images."""
    return (
        f"{name} takes no features beside images, because its logits are not made by one linear "
        "layer; take another model, or leave out data.features"
    )


def _takes(name: str, argument: str, arguments: frozenset[str] | None) -> bool:
    if arguments is not None:
        return argument in arguments
    value = int(_pretrained_config(name).input_size[-1]) if argument == "img_size" else 0.0
    try:
        _on_meta(name, **{argument: value})
    except TypeError:
        return False
    return True


def _classifies(name: str, facts: ModelFacts, pixels: int) -> bool:
    """Whether the model gives (B, classes) logits of images with this side."""
    import torch

    size = {"img_size": pixels} if facts.takes_img_size else {}
    try:
        logits = _on_meta(name, **size)(torch.empty(2, 3, pixels, pixels, device="meta"))
    except Exception:  # noqa: BLE001  each of timm's models refuses a size in a way of its own
        return False
    return isinstance(logits, torch.Tensor) and tuple(logits.shape) == (2, 7)


@functools.cache
def _takes_images(name: str, pixels: int) -> bool:
    answers = {"true": True, "false": False}
    kept = answers.get(recall(name, pixels) or "")
    if kept is not None:
        return kept
    found = _classifies(name, model_facts(name), pixels)
    keep(json.dumps(found), name, pixels)
    return found


def _nearest_sizes(name: str, facts: ModelFacts, pixels: int) -> Iterator[int]:
    """The nearest smaller and the nearest larger size that the model takes, if there are any."""
    near = {step * (pixels // step + k) for step in STEPS for k in (-1, 0, 1, 2)}
    near.add(facts.image_size)
    smaller = sorted((size for size in near if 0 < size < pixels), reverse=True)
    larger = sorted(size for size in near if size > pixels)
    for sizes in (smaller, larger):
        yield from [size for size in sizes if _takes_images(name, size)][:1]
