"""timm's transforms for training and evaluation, and its mixup and cutmix."""

import math
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import RandAugment
from timm.data.mixup import mixup_target
from timm.data.transforms import MaybePILToTensor, RandomResizedCropAndInterpolation
from timm.data.transforms_factory import transforms_imagenet_train
from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip

from sgformer.config import AugmentationConfig, TrainConfig
from sgformer.data.fused_input import FusedInput, Given, images_of
from sgformer.data_config import DataConfig
from sgformer.images.decoding import RgbImage

Transform = Callable[[RgbImage], torch.Tensor]
DO_THE_SAME_TO_TENSORS: Final = (RandomHorizontalFlip, MaybePILToTensor)
# guide: the defaults of the project's brief. mild: for tiny images (digits, 32 pixels), whose
# content colour changes and erasing would remove; a flipped digit is another digit.
POLICIES: Final[dict[str, dict[str, float]]] = {
    "guide": {
        "color_jitter": 0.4,
        "rand_augment_magnitude": 9,
        "random_erasing_prob": 0.25,
        "horizontal_flip_prob": 0.5,
        "min_crop_area": 0.08,
    },
    "mild": {
        "color_jitter": 0,
        "rand_augment_magnitude": 0,
        "random_erasing_prob": 0,
        "horizontal_flip_prob": 0,
        "min_crop_area": 0.7,
    },
}


def train_transform(data: DataConfig, augmentation: AugmentationConfig) -> Transform:
    """The transform of training images, to an augmented (3, H, W) uint8 tensor.

    H = W = image_size. Normalising and erasing (`erasing_prob`) are left to the trainer. With
    RandAugment, timm leaves colour jitter out unless it is forced; this function forces it if the
    config sets `color_jitter`.
    """
    if augmentation.policy == "none":
        return eval_transform(data)
    numbers = _numbers(augmentation)
    magnitude, min_area = numbers["rand_augment_magnitude"], numbers["min_crop_area"]
    scale = (min_area, 1.0)
    ratio = (3 / 4, 4 / 3) if augmentation.policy == "guide" else (0.9, 1.1)
    jitter: Any = numbers["color_jitter"] or None
    interpolation = data.preprocessing.interpolation
    _, *steps = transforms_imagenet_train(
        data.image_size,
        use_prefetcher=True,  # timm then leaves normalising and erasing to us
        interpolation=interpolation,
        hflip=numbers["horizontal_flip_prob"],
        color_jitter=jitter,
        force_color_jitter=augmentation.color_jitter is not None,
        auto_augment=f"rand-m{math.ceil(magnitude)}-mstd0.5" if magnitude else None,
    ).transforms
    for step in steps:
        if isinstance(step, RandAugment):
            _set_magnitude(step, magnitude)
    crop = CropAndResize(data.image_size, scale, ratio, interpolation)
    # Not through PIL where nothing needs it: that takes a third of an image's time.
    needs_pil = not all(isinstance(step, DO_THE_SAME_TO_TENSORS) for step in steps)
    transform: Transform = Compose([crop, *([_as_pil] if needs_pil else []), *steps])
    return transform


def _as_pil(image: torch.Tensor) -> Image.Image:
    """The PIL image of a (3, H, W) uint8 tensor."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def erasing_prob(augmentation: AugmentationConfig) -> float:
    """The share of training images that get a patch of noise."""
    if augmentation.policy == "none":
        return 0.0
    return _numbers(augmentation)["random_erasing_prob"]


def _numbers(augmentation: AugmentationConfig) -> dict[str, float]:
    """The numbers of the policy, with those that are set in their place."""
    defaults = POLICIES[augmentation.policy]
    return defaults | augmentation.model_dump(include=set(defaults), exclude_none=True)


def _set_magnitude(augment: RandAugment, magnitude: float) -> None:
    """Sets a magnitude between whole numbers, and lets Posterize keep one bit at least.

    timm reads whole magnitudes only. Below 2.5 its Posterize would keep no bit, which Pillow 13
    refuses with an error; before, the image became black.
    """
    for operation in augment.ops:
        operation.magnitude = magnitude
        if operation.name == "Posterize":
            bits = operation.level_fn
            operation.level_fn = lambda level, hparams, bits=bits: (max(1, *bits(level, hparams)),)


def eval_transform(data: DataConfig) -> Transform:
    """The transform of evaluation: resize and centre crop, to a (3, H, W) uint8 tensor."""
    look = data.preprocessing
    steps = create_transform(
        (3, data.image_size, data.image_size),
        interpolation=look.interpolation,
        crop_pct=look.crop_pct,
        use_prefetcher=True,
    ).transforms
    transform: Transform = Compose([Image.fromarray, *steps])
    return transform


class BatchMixer:
    """timm's mixup and cutmix: blends each image of a batch with the one at its mirror position.

    The mixer draws from NumPy's global generator.
    """

    def __init__(self, config: TrainConfig, num_classes: int) -> None:
        numbers = config.augmentation
        self._mixup = _Mixup(
            mixup_alpha=numbers.mixup,
            cutmix_alpha=numbers.cutmix,
            prob=numbers.mixup_prob,
            switch_prob=numbers.mixup_switch_prob,
            label_smoothing=config.label_smoothing,
            num_classes=num_classes,
        )

    def __call__(self, given: Given, labels: torch.Tensor) -> tuple[Given, torch.Tensor]:
        """Mixes a batch: (B, 3, H, W) images, in place, and (B,) labels.

        Features are mixed with the shares of the labels; of a pair in which one lacks features,
        both lack them.

        Returns:
            The images, with any features, and (B, classes) targets with label smoothing.
        """
        images, targets = self._mixed(images_of(given), labels)
        if not isinstance(given, FusedInput) or self._mixup.share == 1:
            return given, targets
        share, features = self._mixup.share, given.features
        return FusedInput(images, share * features + (1 - share) * features.flip(0)), targets

    def _mixed(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes images, in place, and labels.

        timm mixes even batches only. The middle image of an odd batch, which would be mixed with
        itself, stays unmixed.
        """
        if len(images) % 2 == 0:
            mixed, targets = self._mixup(images, labels)
            return mixed, targets
        middle = len(images) // 2
        others = [i for i in range(len(images)) if i != middle]
        smoothed = mixup_target(
            labels[[middle]], self._mixup.num_classes, smoothing=self._mixup.label_smoothing
        )
        if not others:
            return images, smoothed
        images[others], targets = self._mixup(images[others], labels[others])
        return images, torch.cat([targets[:middle], smoothed, targets[middle:]])


class _Mixup(Mixup):
    """timm's mixer, which tells the share of the labels that each image has kept.

    Attributes:
        share: The share, 0..1, of the last batch.
    """

    share = 1.0

    def _mix_batch(self, images: torch.Tensor) -> float:
        self.share = float(Mixup._mix_batch(self, images))
        return self.share


class CropAndResize(RandomResizedCropAndInterpolation):
    """timm's random crop, resized with torch's kernel in place of PIL's, to (3, H, W) uint8.

    torch takes a third of PIL's time; pixel values differ by at most 2 of 255.
    """

    interpolation: InterpolationMode

    def __call__(self, image: RgbImage) -> torch.Tensor:
        whole = torch.from_numpy(image).permute(2, 0, 1)
        top, left, height, width = self.get_params(whole, self.scale, self.ratio)
        crop = whole[None, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, self.size, mode=self.interpolation.value, antialias=True)
        return resized[0]
