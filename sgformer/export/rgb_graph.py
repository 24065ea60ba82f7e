"""A model that takes RGB images of any size: the preprocessing of evaluation, inside the graph."""

from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from sgformer.data_config import DataConfig
from sgformer.export.names import IMAGES, INPUT, OUTPUT, PROBABILITIES
from sgformer.images.decoding import MAX_ASPECT_RATIO

# PIL's filter, which torch has too: bicubic with a = -0.5, and weights that stop at the border.
RESIZE: Final = (
    'Resize <mode = "{mode}", antialias = 1, cubic_coeff_a = -0.5, exclude_outside = 1, '
    'coordinate_transformation_mode = "half_pixel">'
)
MODES: Final = {"bicubic": "cubic", "bilinear": "linear"}
# As `decoding.resize` does: the middle of a panorama, then the shorter side, rounded down.
DECODING: Final = """
  rgb_pixels = Transpose <perm = [0, 3, 1, 2]> (images)
  rgb_batch = Shape <start = 0, end = 1> (images)
  rgb_height = Shape <start = 1, end = 2> (images)
  rgb_width = Shape <start = 2, end = 3> (images)
  rgb_shorter = Min (rgb_height, rgb_width)
  rgb_longest = Mul (rgb_shorter, rgb_aspect)
  rgb_kept_height = Min (rgb_height, rgb_longest)
  rgb_kept_width = Min (rgb_width, rgb_longest)
  rgb_spare_height = Sub (rgb_height, rgb_kept_height)
  rgb_spare_width = Sub (rgb_width, rgb_kept_width)
  rgb_first_row = Div (rgb_spare_height, rgb_two)
  rgb_first_column = Div (rgb_spare_width, rgb_two)
  rgb_end_row = Add (rgb_first_row, rgb_kept_height)
  rgb_end_column = Add (rgb_first_column, rgb_kept_width)
  rgb_starts = Concat <axis = 0> (rgb_first_row, rgb_first_column)
  rgb_ends = Concat <axis = 0> (rgb_end_row, rgb_end_column)
  rgb_0 = Slice (rgb_pixels, rgb_starts, rgb_ends, rgb_axes)
"""
RESIZING: Final = """
  rgb_height_{k} = Shape <start = 2, end = 3> (rgb_{k})
  rgb_width_{k} = Shape <start = 3, end = 4> (rgb_{k})
  rgb_shorter_{k} = Min (rgb_height_{k}, rgb_width_{k})
  rgb_tall_{k} = Mul (rgb_height_{k}, rgb_side_{k})
  rgb_wide_{k} = Mul (rgb_width_{k}, rgb_side_{k})
  rgb_new_height_{k} = Div (rgb_tall_{k}, rgb_shorter_{k})
  rgb_new_width_{k} = Div (rgb_wide_{k}, rgb_shorter_{k})
  rgb_sizes_{k} = Concat <axis = 0> (rgb_batch, rgb_three, rgb_new_height_{k}, rgb_new_width_{k})
  rgb_{next} = {resize} (rgb_{k}, , , rgb_sizes_{k})
"""
# The centre crop of torchvision, which rounds half a pixel to the even one.
CROPPING: Final = """
  rgb_shape = Shape <start = 2, end = 4> ({resized})
  rgb_spare = Sub (rgb_shape, rgb_crop)
  rgb_spare_float = Cast <to = 1> (rgb_spare)
  rgb_half = Mul (rgb_spare_float, rgb_one_half)
  rgb_rounded = Round (rgb_half)
  rgb_from = Cast <to = 7> (rgb_rounded)
  rgb_to = Add (rgb_from, rgb_crop)
  rgb_cropped = Slice ({resized}, rgb_from, rgb_to, rgb_axes)
  rgb_float = Cast <to = 1> (rgb_cropped)
  rgb_scaled = Mul (rgb_float, rgb_scale)
  input = Add (rgb_scaled, rgb_shift)
"""


def of_rgb_images(model: onnx.ModelProto, data: DataConfig) -> onnx.ModelProto:
    """The model with images (B, H, W, 3) uint8 as its input, and probabilities as its output.

    A batch has images of one size, (H, W); batches of other sizes follow by other calls.

    Args:
        model: A model of normalised images.
        data: The preprocessing of its evaluation.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    prepared = parser.parse_graph(_program(data))
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    nodes = [
        *prepared.node,
        *model.graph.node,
        helper.make_node("Softmax", [OUTPUT], [PROBABILITIES], axis=-1),
    ]
    for field in (result.graph.node, result.graph.input, result.graph.output):
        del field[:]
    result.graph.node.extend(nodes)
    others = [value for value in model.graph.input if value.name != INPUT]  # features
    result.graph.input.extend([*prepared.input, *others])
    shape = (prepared.input[0].type.tensor_type.shape.dim[0].dim_param, classes)
    result.graph.output.append(
        helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, shape)
    )
    result.graph.initializer.extend([*prepared.initializer, *_factors(data)])
    return result


def _program(data: DataConfig) -> str:
    """The preprocessing, in the text form of ONNX."""
    look = data.preprocessing
    sides = [data.decoded_pixels, int(data.image_size / look.crop_pct)]
    modes = ["cubic", MODES[look.interpolation]]
    if sides[0] == sides[1]:
        sides, modes = sides[:1], modes[:1]
    resizing = "".join(
        RESIZING.format(k=k, next=k + 1, resize=RESIZE.format(mode=mode))
        for k, mode in enumerate(modes)
    )
    numbers = {"aspect": MAX_ASPECT_RATIO, "two": 2, "three": 3}
    numbers |= {f"side_{k}": side for k, side in enumerate(sides)}
    constants = [f"int64[1] rgb_{name} = {{{value}}}" for name, value in numbers.items()]
    constants += [
        "int64[2] rgb_axes = {2, 3}",
        f"int64[2] rgb_crop = {{{data.image_size}, {data.image_size}}}",
        "float rgb_one_half = {0.5}",
    ]
    side, cropping = data.image_size, CROPPING.format(resized=f"rgb_{len(sides)}")
    return (
        f"rgb (uint8[batch, height, width, 3] {IMAGES}) "
        f"=> (float[batch, 3, {side}, {side}] {INPUT}) "
        f"<{', '.join(constants)}> {{{DECODING}{resizing}{cropping}}}"
    )


def _factors(data: DataConfig) -> list[onnx.TensorProto]:
    """What pixels are multiplied by, and what is added to them."""
    mean, std = (np.array(rgb, np.float32) for rgb in (data.mean, data.std))
    factors = {"rgb_scale": 1 / (255 * std), "rgb_shift": -mean / std}
    return [
        numpy_helper.from_array(values.reshape(3, 1, 1).astype(np.float32), name)
        for name, values in factors.items()
    ]
