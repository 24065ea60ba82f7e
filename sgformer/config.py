"""TrainConfig: everything one training depends on. Needs pydantic only, never torch."""

import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
)

from sgformer.errors import ConfigError

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
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

Metric = Literal["val_top1", "val_top5", "val_macro_f1", "val_loss"]
Rate = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Rgb = tuple[float, float, float]
AnyConfig = typing.TypeVar("AnyConfig", bound=BaseModel)


class FrozenConfig(BaseModel):
    """A part of a configuration: cannot change, and takes no key that it does not know."""

    # `model` and `model_*` are field names of ours; numbers may be written as YAML's 1e-3.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class ModelConfig(FrozenConfig):
    """The architecture and its regularisation, by timm's names."""

    name: str = "sg_former_b0"
    drop_rate: Rate = 0.0
    proj_drop_rate: Rate = 0.0
    attn_drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.1

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODEL_NAMES:
            raise ValueError(f"no such model: {name!r}; {nearest_known(name, MODEL_NAMES)}")
        return name


class DataConfig(FrozenConfig):
    """The image folder and how it is read.

    Without a val folder, `val_fraction` of each class in train is val, chosen by `val_seed`.
    `crop_pct` is timm's: images are decoded with the shorter side at image_size / crop_pct
    pixels. `cache_dir` holds the decoded images, at most `cache_bytes` of them (None: half of
    what is free on that disk); those beyond are decoded when they are needed. `num_workers`
    (None: as the CPUs allow) changes how fast images come, not what they are.
    """

    data_dir: Path | None = None
    image_size: int = Field(default=224, le=4096, description="pixels")
    crop_pct: float = Field(default=0.875, ge=0.1, le=1)
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    val_seed: int = Field(default=0, ge=0)
    num_workers: int | None = Field(default=None, ge=0, le=256)
    mean: Rgb = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD
    cache_dir: Path = Path("~/.cache/sgformer-hpo")
    cache_bytes: int | None = Field(default=None, ge=0)

    @field_validator("image_size")
    @classmethod
    def _multiple_of_32(cls, pixels: int) -> int:
        if pixels < 32 or pixels % 32:
            low = max(32, pixels // 32 * 32)
            raise ValueError(
                f"must be a multiple of 32 pixels, got {pixels}; nearest: {low} and {low + 32}"
            )
        return pixels

    @property
    def decoded_pixels(self) -> int:
        """The shorter side of a decoded image."""
        return int(self.image_size / self.crop_pct)


class AugmentationConfig(FrozenConfig):
    """What is done to a training image.

    guide: the brief's defaults (colour jitter 0.4, rand-m9-mstd0.5, bicubic, random erasing of
    one patch of pixels in a quarter of the images, flips). mild: crops and small shifts only,
    for tiny images, where the guide's hurt. none: as in evaluation. A number set here replaces
    the policy's own. `mixup` and `cutmix` are the alphas of the beta distributions that timm
    draws how much of another image is mixed in from; of a batch for which both could, cutmix
    takes `mixup_switch_prob`.
    """

    policy: Literal["guide", "mild", "none"] = "guide"
    color_jitter: float | None = Field(default=None, ge=0)
    rand_augment_magnitude: float | None = Field(default=None, ge=0, le=10)
    random_erasing_prob: Probability | None = None
    horizontal_flip_prob: Probability | None = None
    min_crop_area: float | None = Field(default=None, gt=0, le=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    mixup_prob: Probability = 1.0
    mixup_switch_prob: Probability = 0.5


class OptimizerConfig(FrozenConfig):
    """AdamW; the rate rises linearly for `warmup_epochs`, then follows the schedule.

    `batch_size` images make one optimizer step. `micro_batch_size` of them (None: all) are in
    memory at a time; gradients add up. `layer_decay` multiplies the rate once for each layer
    that lies between a weight and the head. Gradients are scaled to a norm of at most
    `max_grad_norm`.
    """

    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    max_grad_norm: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = Field(default=5, ge=0)
    min_learning_rate: float = Field(default=1e-6, ge=0)


class EarlyStoppingConfig(FrozenConfig):
    """Ends a training after `patience` epochs (None: never) without a gain above `min_delta`.

    The first `warmup_epochs` do not count. `metric` also picks the best epoch; None in a search
    file means the study's objective.
    """

    patience: int | None = Field(default=10, ge=1)
    min_delta: float = Field(default=0.0, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)
    metric: Metric | None = None


class TrainConfig(FrozenConfig):
    """One training, whole: given data and this, its result is fixed.

    `precision` is that of forward and backward; weights are float32 and evaluation is, as the
    exported model. `ema_decay` evaluates and keeps a running mean of the weights.
    `class_balance` makes rare classes count as much as frequent ones, by drawing their images
    more often or by weighting their loss.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    label_smoothing: Rate = 0.1
    class_balance: Literal["none", "sampling", "loss"] = "none"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_epochs: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**62)
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def metric(self) -> Metric:
        """The metric that picks the best epoch."""
        return self.early_stopping.metric or "val_top1"

    def fingerprint(self) -> str:
        """A hash of what is trained, not of where the data lie or what it is trained with."""
        values = self.model_dump(mode="json", exclude={"device"})
        for name in ("data_dir", "num_workers", "cache_dir", "cache_bytes"):
            del values["data"][name]
        del values["optimizer"]["micro_batch_size"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def with_epochs(self, max_epochs: int) -> Self:
        """The same training of another length; a warm-up that no longer fits is clipped."""
        warmup = min(self.optimizer.warmup_epochs, max_epochs / 2)
        optimizer = self.optimizer.model_copy(update={"warmup_epochs": warmup})
        return self.model_copy(update={"max_epochs": max_epochs, "optimizer": optimizer})


def maximises(metric: Metric) -> bool:
    """Whether more of the metric is better."""
    return metric != "val_loss"


def nearest_known(name: str, known: typing.Iterable[str]) -> str:
    """'nearest known: ...' for an error message about an unknown name."""
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    return f"nearest known: {', '.join(close)}"


def validate(model: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """A config from plain values.

    Raises:
        ConfigError: One line for each thing that is wrong, naming the key, the value, what is
            allowed, and `source`, where to fix it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{line} ({source})" for line in lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    path = [str(part) for part in item["loc"] if part not in _UNION_TAGS]
    name = ".".join(path) or "the file"
    if item["type"] == "extra_forbidden":
        fields = fields_at(model, path[:-1])
        if path[-1] in fields:  # of another type than the one that is given beside it
            return f"{name}: does not go with the type given beside it"
        return f"{name}: unknown key; {nearest_known(path[-1], fields)}"
    if item["type"] == "value_error":
        return f"{name}: {item['ctx']['error']}"
    if item["type"] == "missing":
        return f"{name}: is required"
    if item["type"] == "union_tag_not_found":
        tag = item["ctx"]["discriminator"].strip("'")
        return f"{name}.{tag}: is required; a name is the whole dotted path"
    message = item["msg"][0].lower() + item["msg"][1:].replace("tuple", "list")
    return f"{name}: {message}, got {item['input']!r}"


# Pydantic puts a discriminated union's tag into an error's location.
_UNION_TAGS = ("float", "int", "categorical", "function-after", "function-before")


def fields_at(model: type[BaseModel], path: typing.Sequence[str]) -> tuple[str, ...]:
    """Names of the settings below a path; empty where the path leads to no section."""
    sections: tuple[type[BaseModel], ...] = (model,)
    is_mapping = False
    for part in path:
        if is_mapping:  # a key of the user's own, such as a searched parameter's name
            is_mapping = False
            continue
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        sections = tuple(below for field in fields for below in _sections(field.annotation))
        is_mapping = any(typing.get_origin(field.annotation) is dict for field in fields)
    return tuple(dict.fromkeys(name for section in sections for name in section.model_fields))


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The config classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, dict):
        return tuple(s for arg in typing.get_args(annotation) for s in _sections(arg))
    return ()
