"""The rules by which a first search file is chosen: facts in, choices out.

The rules and where each comes from: docs/init.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from hpo.proposal.footprints import LARGEST_BATCHES, at_a_time, megabytes, power_of_two
from hpo.proposal.machine import Machine, Weights
from sgformer.data_check.glance import Glance

Recipe = Literal["fine_tune", "small", "core"]  # names of files in search_spaces/

TINY_PIXELS: Final = 64  # a median side below this: weights of photographs do not fit
MANY_IMAGES: Final = 200_000  # from here on from scratch, even if there are weights
ENOUGH_IMAGES: Final = 20_000  # from here on SG-Former, where there are no weights
STRIDE: Final = 32
LARGEST_SIDE: Final = {"fine_tune": 224, "small": 128, "core": 224}
SLOTS_OF_CPUS: Final = 4  # trials at a time on CPUs
STEPS_OF_FINE_TUNING: Final = 2000
EPOCHS_OF_FINE_TUNING: Final = (10, 60)
STEPS_OF_AN_EPOCH: Final = 10  # at least, as far as batches of 8 images allow
IMBALANCED: Final = 10.0  # images of the largest class for one of the smallest
OF_GPU: Final = ("sg_former_s", "convnext_nano.in12k_ft_in1k", "convnext_atto.d2_in1k")
OF_CPU: Final = ("convnext_atto.d2_in1k", "sg_former_s")
SIZES: Final = tuple(f"sg_former_b{i}" for i in range(6))
SIZES_OF_CPU: Final = ("sg_former_nano", "sg_former_pico", "sg_former_micro", "sg_former_b0")
SIZES_OF_TINY: Final = ("sg_former_micro", "sg_former_nano", "sg_former_b0", "sg_former_b1")
MODELS_OF_SMALL: Final = ("resnet18", "sg_former_pico", "sg_former_nano", "sg_former_micro")


@dataclass(frozen=True)
class Facts:
    """What the rules look at: the images, the machine, and weights in the order of preference."""

    images: Glance
    machine: Machine
    weights: tuple[Weights, ...] = ()

    @property
    def num_train(self) -> int:
        """Images to train on, without val."""
        return self.images.splits["train"].images

    @property
    def side(self) -> float:
        """The median of the images' shorter sides, in pixels."""
        return self.images.shorter_side.median

    @property
    def is_tiny(self) -> bool:
        return self.side < TINY_PIXELS

    @property
    def wants_weights(self) -> bool:
        """Whether pretrained weights are worth starting from, if they can be had."""
        return self.num_train < MANY_IMAGES and not self.is_tiny

    @property
    def usable_weights(self) -> str | None:
        """The first model whose weights can be had."""
        return next((one.model for one in self.weights if not one.problem), None)

    @property
    def num_slots(self) -> int:
        """Trials at a time: one a GPU, or a few on CPUs."""
        return self.machine.gpus or min(SLOTS_OF_CPUS, self.machine.cpus)


@dataclass(frozen=True)
class Choice:
    """A setting of the search file that a rule has chosen.

    Attributes:
        path: Its keys, from the top of the file; a searched parameter's name is one key.
        value: Its value.
        why: The reason, in words.
    """

    path: tuple[str, ...]
    value: Any
    why: str


@dataclass(frozen=True)
class Proposal:
    """A search file in the making: a shipped one, its reason, and what replaces its settings."""

    recipe: Recipe
    why: str
    choices: tuple[Choice, ...]

    def chosen(self, *path: str) -> Any:
        """The value that was chosen for a setting; None: the recipe's stands."""
        return next((one.value for one in self.choices if one.path == path), None)


def candidates(machine: Machine) -> tuple[str, ...]:
    """The models whose weights are worth starting from on this machine, the best first."""
    return OF_GPU if machine.gpus else OF_CPU


def propose(facts: Facts) -> Proposal:
    """The search file for these images on this machine, without its budget."""
    recipe, why = _recipe(facts)
    side = _image_size(facts, recipe)
    models, why_models = _models(facts, recipe, side)
    choices = [
        *_split(facts),
        Choice(("train", "data", "image_size"), side, _why_side(facts, side)),
        *_model_choices(recipe, models, why_models),
        *_batches(facts, recipe, models, side),
        *_balance(facts),
        *_augmentation(facts, recipe),
        *_resources(facts),
    ]
    if recipe == "fine_tune":
        batch = next(one.value for one in choices if one.path[-1] == "batch_size")
        choices.append(_epochs(facts, batch))
    return Proposal(recipe, why, tuple(choices))


def _recipe(facts: Facts) -> tuple[Recipe, str]:
    num = facts.num_train
    what = f"{num:,} images to train, {num // facts.images.splits['train'].classes:,} a class"
    if num >= MANY_IMAGES:
        return "core", f"{what}: many, so SG-Former is trained from scratch"
    if facts.wants_weights and facts.usable_weights:
        return "fine_tune", f"{what}: few, so pretrained weights are fine-tuned"
    lack = (
        f"sides of {facts.side:.0f} pixels are too small for pretrained weights"
        if facts.is_tiny
        else "no pretrained weights are at hand"
    )
    if num >= ENOUGH_IMAGES:
        return "core", f"{what}, and {lack}: SG-Former is trained from scratch"
    return "small", f"{what}, and {lack}: small models are trained from scratch"


def _image_size(facts: Facts, recipe: Recipe) -> int:
    nearest = STRIDE * round(facts.side / STRIDE)
    return max(STRIDE, min(LARGEST_SIDE[recipe], nearest))


def _why_side(facts: Facts, side: int) -> str:
    why = f"the shorter side is {facts.side:.0f} pixels in the median"
    return why if side >= facts.side - STRIDE else f"{why}; this recipe goes up to {side}"


def _split(facts: Facts) -> Iterator[Choice]:
    images = facts.images
    found = ", ".join(f"{one.images:,} {name}" for name, one in images.splits.items())
    yield Choice(
        ("train", "data", "data_dir"), images.folder,
        f"{found} images in {images.splits['train'].classes:,} classes",
    )  # fmt: skip
    if images.val_is_of_train:
        total = images.num_to_split
        share = 0.2 if total < ENOUGH_IMAGES else 0.1 if total < MANY_IMAGES else 0.05
        why = f"there is no val split: about {share * total:,.0f} of {total:,} train images"
        yield Choice(("train", "data", "val_fraction"), share, why)


def _models(facts: Facts, recipe: Recipe, side: int) -> tuple[tuple[str, ...], str]:
    """The models that the file searches, the default first, with the reason."""
    if recipe == "fine_tune":
        assert facts.usable_weights is not None
        where = next(w.whereabouts for w in facts.weights if w.model == facts.usable_weights)
        return (facts.usable_weights,), f"its weights are {where}"
    if recipe == "small":
        return MODELS_OF_SMALL, ""
    if facts.is_tiny:
        return SIZES_OF_TINY, "small sizes for small images"
    if not facts.machine.gpus:
        return SIZES_OF_CPU, "there is no GPU, so small sizes only"
    able = [name for name in SIZES if at_a_time(name, side, _room(facts)) >= LARGEST_BATCHES[-1]]
    room = f"{LARGEST_BATCHES[-1]} images at a time in {_room(facts) / 1e9:.0f} GB"
    if not able:
        return SIZES[:1], f"the smallest; of no size fit {room}"
    return tuple(able), f"sizes of which fit {room}"


def _model_choices(recipe: Recipe, models: tuple[str, ...], why: str) -> Iterator[Choice]:
    if recipe == "small":
        return
    yield Choice(("train", "model", "name"), models[0], why)
    if recipe == "core":
        space = {"type": "categorical", "choices": list(models)}
        yield Choice(("space", "model.name"), space, why)


def _batches(facts: Facts, recipe: Recipe, models: tuple[str, ...], side: int) -> Iterator[Choice]:
    """The batch by the number of images, and how many of it are in memory at a time."""
    num, room = facts.num_train, _room(facts)
    largest = max(models, key=lambda name: megabytes(name, side))
    fit = at_a_time(largest, side, room)
    if recipe == "core":
        sizes = LARGEST_BATCHES if facts.machine.gpus else LARGEST_BATCHES[-1:]
        batch = next((size for size in sizes if size <= fit), LARGEST_BATCHES[-1])
        why = f"the most of {', '.join(map(str, reversed(sizes)))} that fit with {largest}"
        why = why if len(sizes) > 1 else "the recipe's"
    else:
        most = 64 if recipe == "fine_tune" else 32
        batch = min(most, max(8, power_of_two(num / STEPS_OF_AN_EPOCH)))
        why = f"an epoch of {num:,} images has {-(-num // batch):,} steps"
    yield Choice(("train", "optimizer", "batch_size"), batch, why)
    if fit < batch:
        micro = max(2, power_of_two(fit))
        kind = "GPU" if facts.machine.gpus else f"memory for each of {facts.num_slots} trials"
        why = f"{largest} takes {megabytes(largest, side):.0f} MB an image; {room / 1e9:.1f} GB of"
        yield Choice(("train", "optimizer", "micro_batch_size"), micro, f"{why} {kind}")


def _room(facts: Facts) -> float:
    """Bytes for one training; the rest is the system's, the cache's and CUDA's."""
    machine = facts.machine
    return (
        0.8 * machine.gpu_bytes if machine.gpus else 0.5 * machine.memory_bytes / facts.num_slots
    )


def _balance(facts: Facts) -> Iterator[Choice]:
    sizes = facts.images.class_sizes
    if sizes.ratio < IMBALANCED:
        return
    ratio = f"{sizes.largest_class!r} has {sizes.ratio:.3g} images for one of "
    ratio += f"{sizes.smallest_class!r} ({sizes.largest:,} and {sizes.smallest:,})"
    yield Choice(
        ("study", "objectives"), [["val_macro_f1", "maximize"]],
        f"{ratio}: macro F1 counts every class alike",
    )  # fmt: skip
    yield Choice(("train", "class_balance"), "loss", f"{ratio}: rare classes weigh more")
    space = {"type": "categorical", "choices": ["none", "loss", "sampling"]}
    yield Choice(("space", "class_balance"), space, "whether and how to weigh them is searched")


def _augmentation(facts: Facts, recipe: Recipe) -> Iterator[Choice]:
    if facts.is_tiny and recipe == "core":
        why = f"strong augmentation spoils images of {facts.side:.0f} pixels"
        yield Choice(("train", "augmentation", "policy"), "mild", why)
        yield Choice(("train", "augmentation", "min_crop_area"), 0.7, "crops keep most of them")


def _resources(facts: Facts) -> Iterator[Choice]:
    machine = facts.machine
    if machine.gpus:
        cards = f"{machine.gpus} x {machine.gpu_name}, {machine.gpu_bytes / 1e9:.0f} GB"
        why = f"{cards}: a small model gets a part of one, which is measured at the start"
        yield Choice(("resources", "gpus_per_trial"), "auto", why)
        return
    yield Choice(("resources", "gpus_per_trial"), 0, "PyTorch finds no GPU here")
    cpus = machine.cpus // facts.num_slots
    why = f"{machine.cpus} CPUs, {facts.num_slots} trials at a time: later ones learn from them"
    yield Choice(("resources", "cpus_per_trial"), cpus, why)
    yield Choice(("resources", "max_concurrent_trials"), facts.num_slots, "as above")


def _epochs(facts: Facts, batch: int) -> Choice:
    steps = max(1.0, facts.num_train / batch)
    low, high = EPOCHS_OF_FINE_TUNING
    epochs = max(low, min(high, 5 * round(STEPS_OF_FINE_TUNING / steps / 5)))
    why = f"{epochs * steps:,.0f} steps; fine-tuning takes some {STEPS_OF_FINE_TUNING:,}"
    return Choice(("train", "max_epochs"), epochs, why)
