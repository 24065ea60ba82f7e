"""TrainConfig: all settings of one training. For SG-Former this module needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sgformer.catalog import RATES, check_image_size, check_known, is_ours, model_facts
from sgformer.data_config import HASHING, DataConfig
from sgformer.errors import ConfigError
from sgformer.extension_config import ExtensionConfig
from sgformer.fingerprint import fingerprint_of
from sgformer.validation import FrozenConfig, SettingError

Metric = Literal["val_top1", "val_top5", "val_macro_f1", "val_loss"]
Rate = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class FusionConfig(FrozenConfig):
    """How a model takes features beside images (`data.features`).

    Attributes:
        dim: Numbers to which the features are projected before the gate.
        dropout: Dropout probability of the projected features.
        modality_dropout: Share of training images of which the model is shown the image alone or
            the features alone, half of each, so that it can do with either.
        num_features: Numbers of an image's features; the program sets it by the table.
    """

    dim: int = Field(default=64, ge=1, le=4096)
    dropout: Rate = 0.1
    modality_dropout: Rate = 0.2
    num_features: int | None = Field(default=None, ge=1)


class ModelConfig(FrozenConfig):
    """The architecture, the weights that it starts from, and its dropout rates.

    Attributes:
        name: The name of an SG-Former (`sg_former_b0`) or of any image classifier of timm, with
            or without the tag of its weights (`resnet18`, `resnet18.a1_in1k`).
        pretrained: Whether the training starts from timm's pretrained weights; for SG-Former,
            from the authors' file in the folder of weights.
        checkpoint: A file of weights to start from: a released SG-Former, the checkpoint of a
            training of this program or the folder of one (`runs/x/best`), or a state dict of
            timm's, as .safetensors or .pth.
        drop_rate: Dropout probability before the head.
        proj_drop_rate: Dropout probability after attention projections and in MLPs.
        attn_drop_rate: Dropout probability of attention weights.
        drop_path_rate: Probability that the last block is skipped (stochastic depth). A model
            without stochastic depth ignores the default.
        fusion: How the model takes features beside images.
    """

    name: str = "sg_former_b0"
    pretrained: bool = False
    checkpoint: Path | None = None
    drop_rate: Rate = 0.0
    proj_drop_rate: Rate = 0.0
    attn_drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.1
    fusion: FusionConfig = FusionConfig()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            check_known(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _is_named(cls, checkpoint: object) -> object:
        if checkpoint == "":  # as a path it would be the current folder
            raise ValueError("names no file; give a path, or leave it out, got ''")
        return checkpoint

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.pretrained and self.checkpoint is not None:
            raise SettingError(
                "checkpoint",
                f"pretrained weights are asked for too; leave one of the two out, got "
                f"{str(self.checkpoint)!r}",
            )
        return self


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
        head_learning_rate_factor: Learning rate of the head as a multiple of the learning rate.
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
    head_learning_rate_factor: float = Field(default=1.0, gt=0)
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


class DistillationConfig(FrozenConfig):
    """A trained model, the teacher, whose probabilities are learnt beside the labels.

    The teacher answers on the same images as the student: cropped, augmented and mixed. Sources:
    Hinton, Vinyals and Dean, arXiv:1503.02531; Beyer et al., arXiv:2106.05237.

    Attributes:
        teacher: A model that a run delivered (`runs/x/best`), or the checkpoint of a trial;
            several are an ensemble. Empty: there is no teacher.
        temperature: Divides the logits of teacher and student before the softmax; the higher it
            is, the more the unlikely classes count.
        weight: The teacher's share of the loss; the labels have the rest. 0: the labels alone.
    """

    teacher: tuple[Path, ...] = ()
    temperature: float = Field(default=2.0, gt=0, le=100)
    weight: Probability = 0.5

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        paths = [value] if isinstance(value, (str, Path)) else value
        if isinstance(paths, (list, tuple)) and "" in paths:
            raise ValueError("names no file; give a path, or leave it out, got ''")
        return paths

    @property
    def is_used(self) -> bool:
        """Whether there is a teacher, and it has a share of the loss."""
        return bool(self.teacher) and self.weight > 0


class TrainConfig(FrozenConfig):
    """All settings of one training. Settings and images together determine its result.

    Attributes:
        model: The architecture.
        data: The images.
        augmentation: How training images are augmented.
        optimizer: The optimizer.
        early_stopping: When the training ends early, and which epoch is the best.
        label_smoothing: Share of the target's probability that is spread over all classes.
        distillation: The model that teaches this one.
        extension: The model that is given new classes; training starts from it, and it teaches.
        class_balance: Makes rare classes count as much as frequent ones: `sampling` draws their
            images more often, `loss` gives their images larger weights in the loss, at most 100
            times that of the most frequent class's images.
        ema_decay: Decay, per step, of the exponential moving average (EMA) of the weights; the
            averaged weights are evaluated and delivered. None uses the trained weights.
        freeze: Which weights are not trained: `none`, `backbone` (all but the head), or
            `stages_N` (the stem and the first N stages).
        unfreeze_epoch: The first epoch in which frozen weights are trained too; None: they stay
            frozen to the end.
        max_epochs: Length of the training, in epochs.
        epoch_images: Training images of an epoch, in whole batches; None: all of them. Whatever
            counts epochs counts these. The order of images is that of passes over all of them,
            which an epoch may cut anywhere.
        eval_images: Val images that an epoch's metrics are of: always the same ones, as many of
            each class as its share. None: all. Finalists and delivered models take all.
        seed: Determines all randomness of the training.
        precision: Number type of the training's forward and backward pass; `auto` takes bf16 on a
            GPU that computes it in hardware, else float32. Weights, the final evaluation and the
            exported model are float32.
        channels_last: Whether training keeps images and convolutions channels-last in memory;
            `auto` does for convolutional models on a GPU.
        grad_checkpointing: Whether the backward pass computes activations anew, which takes less
            memory and more time.
        compile: Whether torch.compile compiles the training's forward and backward pass.
        device: `auto` takes a GPU if this machine has a usable one, else the CPU.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    label_smoothing: Rate = 0.1
    distillation: DistillationConfig = DistillationConfig()
    extension: ExtensionConfig = ExtensionConfig()
    class_balance: Literal["none", "sampling", "loss"] = "none"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    freeze: str = Field(default="none", pattern=r"^(none|backbone|stages_[1-9][0-9]?)$")
    unfreeze_epoch: int | None = Field(default=None, ge=2)
    max_epochs: int = Field(default=100, ge=1)
    epoch_images: int | None = Field(default=None, ge=1)
    eval_images: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**62)
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    grad_checkpointing: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def metric(self) -> Metric:
        """The metric by which the best epoch is chosen."""
        return self.early_stopping.metric or "val_top1"

    @model_validator(mode="after")
    def _image_size_fits(self) -> Self:
        """Checks SG-Former's image size; `create_model` checks those of timm's models."""
        if is_ours(self.model.name):
            try:
                check_image_size(self.model.name, self.data.image_size)
            except ConfigError as error:
                raise SettingError("data.image_size", str(error)) from None
        return self

    @model_validator(mode="after")
    def _encoder_has_texts(self) -> Self:
        encoder = self.data.text_encoder
        if encoder is not None and self.data.features is None:
            raise SettingError(
                "data.text_encoder",
                f"there are no texts to encode; name their table (--texts FILE, or "
                f"data.features), got {encoder!r}",
            )
        return self

    @model_validator(mode="after")
    def _epochs_have_a_step(self) -> Self:
        batch_size = self.optimizer.batch_size
        if self.epoch_images is not None and self.epoch_images < batch_size:
            raise SettingError(
                "epoch_images",
                f"an epoch has whole batches: at least optimizer.batch_size={batch_size}, got "
                f"{self.epoch_images}",
            )
        return self

    @model_validator(mode="after")
    def _extends_what_it_starts_from(self) -> Self:
        base, teacher = self.extension.base, self.distillation.teacher
        if base is not None and self.data.features is not None:
            raise SettingError(
                "data.features",
                f"an extension takes images alone, got {str(self.data.features)!r}",
            )
        if base is None or (self.model.checkpoint == base and teacher in ((base,), ())):
            return self
        raise SettingError(
            "extension.base",
            "is what the training starts from, and the only teacher: model.checkpoint and "
            f"distillation.teacher must name it, too, as `extend` sets them, got {str(base)!r}, "
            f"{str(self.model.checkpoint)!r} and {[str(path) for path in teacher]}",
        )

    def resolved(self) -> Self:
        """A copy in which the model's own values stand for the preprocessing that is not set."""
        facts = model_facts(self.model.name)
        rates = {rate: 0.0 for rate in RATES if rate not in facts.rates}
        update = {
            "data": self.data.with_preprocessing(facts.preprocessing),
            "model": self.model.model_copy(update=rates),
        }
        return self.model_copy(update=update)

    def with_num_features(self, num: int | None) -> Self:
        """A copy whose model takes so many numbers beside an image; None: it takes images alone.

        Raises:
            ConfigError: The config asks for another number.
        """
        fusion = self.model.fusion
        if fusion.num_features not in (None, num):
            raise ConfigError(
                f"model.fusion.num_features: is {fusion.num_features}, but the table has "
                f"{num or 'none'}; leave it out (data.features)"
            )
        fusion = fusion.model_copy(update={"num_features": num})
        return self.model_copy(update={"model": self.model.model_copy(update={"fusion": fusion})})

    def fingerprint(
        self,
        weights: str | None = None,
        teachers: Sequence[str] = (),
        features: str | None = None,
    ) -> str:
        """A hash of the settings that determine the result.

        Folders, device, loading processes, the cache's size and format, and what only saves
        memory (the size of micro-batches, gradient checkpointing) are left out.

        Args:
            weights: The SHA-256 of the weights that the training starts from; None: unknown, or
                newly initialised.
            teachers: The SHA-256 of each of the teacher's checkpoints; empty: unknown, or none.
            features: The digest of the features; None: unknown, or none.
        """
        values = self.resolved().model_dump(mode="json")
        base = values["extension"].pop("base")  # its weights are those that are started from
        if base is None:
            values.pop("extension")
        fusion, encoder = values["model"].pop("fusion"), values["data"].pop("text_encoder")
        if values["data"].pop("features") is not None:
            fusion.pop("num_features")
            # The features' digest covers the files of an encoder's folder; its path is left out.
            known = encoder if encoder in (None, HASHING) else "folder"
            values["fusion"] = fusion | {"encoder": known, "features": features}
        if not self.distillation.is_used:
            values.pop("distillation")
        elif teachers:
            values["distillation"]["checkpoints"] = list(teachers)
        return fingerprint_of(values, weights)

    def with_epochs(self, max_epochs: int) -> Self:
        """A copy with another training length, and a warm-up of at most half that length."""
        warmup = min(self.optimizer.warmup_epochs, max_epochs / 2)
        optimizer = self.optimizer.model_copy(update={"warmup_epochs": warmup})
        return self.model_copy(update={"max_epochs": max_epochs, "optimizer": optimizer})


def maximises(metric: Metric) -> bool:
    """Whether higher values of the metric are better."""
    return metric != "val_loss"
