"""TrainConfig: all settings of one training. This module needs pydantic only, never torch."""

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
    """A section of a configuration: it is immutable and refuses unknown keys."""

    # pydantic protects names that begin with `model_`; here they are names of settings.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class ModelConfig(FrozenConfig):
    """The architecture and its dropout rates, under timm's names."""

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

    Attributes:
        data_dir: The image folder.
        image_size: Side of the model's square input in pixels, a multiple of 32.
        crop_pct: timm's crop_pct: images are decoded with a shorter side of image_size / crop_pct
            pixels, and evaluation crops the centre.
        val_fraction: Share of each class's train images that becomes val, if there is no val
            folder.
        val_seed: Seed that chooses which train images become val.
        num_workers: Processes that load images; None chooses their number by the CPUs. Images
            and their augmentation do not depend on it.
        mean: Mean of each colour channel, 0..1, for normalisation.
        std: Standard deviation of each colour channel (of values 0..1), for normalisation.
        cache_dir: Folder of the caches of decoded images.
        cache_bytes: Largest size of one image folder's cache; None for half of the disk's free
            space. Images beyond this size are decoded each time they are needed.
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
        """Pixels of a decoded image's shorter side."""
        return int(self.image_size / self.crop_pct)


class AugmentationConfig(FrozenConfig):
    """How training images are augmented.

    Attributes:
        policy: `guide` has the defaults of the project's brief (colour jitter 0.4,
            rand-m9-mstd0.5, bicubic resizing, flips, and random erasing of one patch in a quarter
            of the images). `mild` only crops and shifts a little, for tiny images, which `guide`
            spoils. `none` treats training images as evaluation does. Each of the next five
            settings, if set, replaces the value of `guide` or `mild`.
        color_jitter: Strength of random changes of brightness, contrast and saturation; 0 turns
            colour jitter off.
        rand_augment_magnitude: Magnitude of RandAugment, 0..10; 0 turns RandAugment off.
        random_erasing_prob: Share of images in which noise replaces one patch.
        horizontal_flip_prob: Share of images that are mirrored.
        min_crop_area: Least area of the random crop, as a share of the image's area.
        mixup: Alpha of mixup's beta distribution, from which timm draws the weight of the other
            image; 0 turns mixup off.
        cutmix: Alpha of cutmix's beta distribution, from which timm draws the area of the other
            image's patch; 0 turns cutmix off.
        mixup_prob: Share of batches that are mixed.
        mixup_switch_prob: Share of mixed batches that use cutmix if both mixup and cutmix are on.
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
    """AdamW and its learning-rate schedule.

    Attributes:
        learning_rate: The peak learning rate, reached at the end of the warm-up.
        weight_decay: AdamW's weight decay; norms, biases and the position table have none.
        layer_decay: Learning rate of a layer as a multiple of the next layer's rate, from the
            head backwards; None gives all layers the same rate.
        max_grad_norm: Gradients with a larger L2 norm are scaled down to this norm; None turns
            clipping off.
        batch_size: Images of one optimizer step, over all processes.
        micro_batch_size: Images that a process runs through the model at a time; the gradients of
            micro-batches are added up. None runs the whole batch at once.
        lr_schedule: The learning rate after the warm-up: `cosine` lowers it along half a cosine,
            `constant` keeps the peak.
        warmup_epochs: Epochs in which the learning rate rises linearly from 0 to its peak.
        min_learning_rate: The learning rate at the end of the cosine.
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
    """When a training that no longer improves is ended.

    Attributes:
        patience: Epochs without improvement after which the training ends; None for never.
        min_delta: An epoch counts as an improvement if the metric gains more than this.
        warmup_epochs: Number of first epochs that do not count towards the patience.
        metric: The metric that must improve, and by which the best epoch is chosen. None stands
            for the study's objective in a search file, and for val_top1 elsewhere.
    """

    patience: int | None = Field(default=10, ge=1)
    min_delta: float = Field(default=0.0, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)
    metric: Metric | None = None


class TrainConfig(FrozenConfig):
    """All settings of one training. Settings and images together determine its result.

    Attributes:
        model: The architecture.
        data: The images.
        augmentation: How training images are augmented.
        optimizer: The optimizer.
        early_stopping: When the training ends early, and which epoch is the best.
        label_smoothing: Share of the target's probability that is spread over all classes.
        class_balance: Makes rare classes count as much as frequent ones: `sampling` draws their
            images more often, `loss` gives their images larger weights in the loss.
        ema_decay: Decay, per step, of the exponential moving average (EMA) of the weights; the
            averaged weights are evaluated and delivered. None uses the trained weights.
        max_epochs: Length of the training, in epochs.
        seed: Determines all randomness of the training.
        precision: Number type of the training's forward and backward pass. Weights, evaluation
            and the exported model are float32.
        channels_last: Whether training keeps images and convolutions channels-last in memory.
        compile: Whether torch.compile compiles the training's forward and backward pass.
        device: `auto` takes a GPU if this machine has a usable one, else the CPU.
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
        """The metric by which the best epoch is chosen."""
        return self.early_stopping.metric or "val_top1"

    def fingerprint(self) -> str:
        """A hash of the settings that determine the result.

        Folders, device, loading processes, cache size and micro-batch size are left out.
        """
        values = self.model_dump(mode="json", exclude={"device"})
        for name in ("data_dir", "num_workers", "cache_dir", "cache_bytes"):
            del values["data"][name]
        del values["optimizer"]["micro_batch_size"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def with_epochs(self, max_epochs: int) -> Self:
        """A copy with another training length, and a warm-up of at most half that length."""
        warmup = min(self.optimizer.warmup_epochs, max_epochs / 2)
        optimizer = self.optimizer.model_copy(update={"warmup_epochs": warmup})
        return self.model_copy(update={"max_epochs": max_epochs, "optimizer": optimizer})


def maximises(metric: Metric) -> bool:
    """Whether higher values of the metric are better."""
    return metric != "val_loss"


def nearest_known(name: str, known: typing.Iterable[str]) -> str:
    """The part 'nearest known: NAMES' of the error message about an unknown name."""
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    return f"nearest known: {', '.join(close)}"


def validate(model: type[AnyConfig], values: Any, source: str) -> AnyConfig:
    """A config of class `model`, built from plain values.

    Args:
        model: Class of the config.
        values: The values, as read from YAML or JSON.
        source: Where a user can correct the values, such as a file's name.

    Raises:
        ConfigError: A value is wrong. The message has a line for each mistake, with the key, the
            value, what is allowed, and `source`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{line} ({source})" for line in lines)) from None


def _explain(model: type[BaseModel], item: Any) -> str:
    """One of pydantic's errors as a line for the user: key, mistake and value."""
    path = [str(part) for part in item["loc"] if part not in _UNION_TAGS]
    name = ".".join(path) or "the file"
    if item["type"] == "extra_forbidden":
        fields = fields_at(model, path[:-1])
        if path[-1] in fields:  # the key is a setting of another `type` than the given one
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


# Tags of discriminated unions and validators, which pydantic puts into an error's location.
_UNION_TAGS = ("float", "int", "categorical", "function-after", "function-before")


def fields_at(model: type[BaseModel], path: typing.Sequence[str]) -> tuple[str, ...]:
    """The names of the settings in the section at a path; empty if there is no such section."""
    sections: tuple[type[BaseModel], ...] = (model,)
    is_mapping = False
    for part in path:
        if is_mapping:  # the user chose this key, such as the name of a searched parameter
            is_mapping = False
            continue
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        sections = tuple(below for field in fields for below in _sections(field.annotation))
        is_mapping = any(typing.get_origin(field.annotation) is dict for field in fields)
    return tuple(dict.fromkeys(name for section in sections for name in section.model_fields))


def _sections(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The config classes among the types that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, dict):
        return tuple(s for arg in typing.get_args(annotation) for s in _sections(arg))
    return ()
