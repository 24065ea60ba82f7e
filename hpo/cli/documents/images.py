"""The documents of data sets, and of what `init` makes of them."""

from typing import Any

from hpo.cli.documents.base import Document, told


class SplitFound(Document):
    images: int
    classes: int


class ClassSizes(Document):
    split: str
    largest: int
    largest_class: str
    median: float
    smallest: int
    smallest_class: str
    ratio: float | None = told("largest to smallest; `null`: the smallest has no image")


class Sides(Document):
    smallest: int = told("pixels")
    median: float
    largest: int


class Trait(Document):
    images: int
    share: float = told("of the readable images, 0 to 1")
    first: str | None = told("one of them")


class Rules(Document):
    background: list[int] = told("red, green, blue under transparent pixels")
    max_value: float | None = told("the value that becomes 255")


class Unreadable(Document):
    images: int
    first: list[str] = told("ten at most")


class EqualImages(Document):
    images: int
    first: list[str] = told("one, and an image that it is equal to")


class EqualAcross(EqualImages):
    split: str
    earlier: str = told("the split that has them, too")


class Equal(Document):
    within: dict[str, EqualImages] = told("by split")
    across: list[EqualAcross]
    in_several_classes: EqualImages | None


class Checked(Document):
    folder: str
    refused: str | None = told("why a search would not accept it")
    splits: dict[str, SplitFound]
    val_is_of_train: bool = told("whether val is split off train")
    class_sizes: ClassSizes | None
    shorter_side: Sides | None
    longer_side: Sides | None
    formats: dict[str, int] = told("readable images by format")
    traits: dict[str, Trait]
    rules: Rules
    unreadable: Unreadable
    equal: Equal = told("images that are equal byte for byte")
    passed_over: list[str] = told("what is no image, or hidden")


class Glance(Document):
    folder: str
    splits: dict[str, SplitFound]
    val_is_of_train: bool = told("whether val is split off train")
    class_sizes: ClassSizes
    shorter_side: Sides = told("of the images that were looked at")
    longer_side: Sides
    num_looked_at: int = told("train images whose headers were read")
    num_unknown: int = told("those whose headers tell no size")
    passed_over: list[str] = told("what is no image, or hidden")


class Machine(Document):
    cpus: int = told("that the program may use")
    memory_bytes: int = told("that the program may use")
    gpus: int
    gpu_bytes: int = told("of the smallest GPU")
    gpu_name: str | None


class WeightsFound(Document):
    model: str
    whereabouts: str
    problem: str = told("why they are out of reach, and how to get them; empty: they can be had")


class Chosen(Document):
    setting: str = told("its path in the search file")
    value: Any
    why: str = told("the rule's reason; may be empty")


class Proposed(Document):
    file: str = told("the search file that was written")
    recipe: str = told("the file of search_spaces that it is made of")
    why: str = told("why that one")
    images: Glance
    machine: Machine
    weights: list[WeightsFound] = told("pretrained weights, in the order of preference")
    choices: list[Chosen] = told("what rules chose in place of the recipe's values")
    epoch_seconds: float | None = told("of the default configuration; null: not measured")
    problem: str | None = told("why the default configuration cannot be trained here")
