"""How much memory the training of a model takes, for the models that the rules choose from."""

from typing import Final, NamedTuple

PIXELS: Final = 224  # side of the images of the table
BYTES_OF_A_PARAMETER: Final = 16  # float32: weight, gradient, and AdamW's two moments
LARGEST_BATCHES: Final = (256, 128, 64)


class Footprint(NamedTuple):
    """Megabytes that the backward pass needs of an image, and millions of parameters."""

    megabytes: float
    millions: float


# Source: benchmarks/activation_memory.py: tensors kept for the backward pass in float32 at 224
# pixels, for each image of a batch. bf16 keeps about half of it.
FOOTPRINTS: Final = {
    "sg_former_pico": Footprint(16, 0.2),
    "sg_former_nano": Footprint(27, 0.5),
    "sg_former_micro": Footprint(43, 1.4),
    "sg_former_b0": Footprint(71, 5.4),
    "sg_former_b1": Footprint(138, 12.5),
    "sg_former_b2": Footprint(183, 22.0),
    "sg_former_b3": Footprint(258, 38.2),
    "sg_former_b4": Footprint(321, 59.4),
    "sg_former_b5": Footprint(448, 82.9),
    "sg_former_s": Footprint(183, 22.0),
    "convnext_atto.d2_in1k": Footprint(32, 3.4),
    "convnext_nano.in12k_ft_in1k": Footprint(68, 15.0),
    "resnet18": Footprint(22, 11.2),
}


def megabytes(model: str, side: int) -> float:
    """Megabytes of an image with this side, in pixels; they grow with its area."""
    return FOOTPRINTS[model].megabytes * (side / PIXELS) ** 2


def at_a_time(model: str, side: int, room: float) -> int:
    """How many images of this side fit into so many bytes, beside the model; it may be 0."""
    left = room - 1e6 * FOOTPRINTS[model].millions * BYTES_OF_A_PARAMETER
    return max(0, int(left / (1e6 * megabytes(model, side))))


def power_of_two(number: float) -> int:
    """The largest power of two that is not above the number; 1 for less."""
    return 1 << (max(1, int(number)).bit_length() - 1)
