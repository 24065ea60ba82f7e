"""The ONNX graph of an ensemble, made of its members' graphs.

So that PyTorch exports each architecture once, however many members have it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from sgformer.export.names import BATCH, INPUT, OUTPUT
from sgformer.model.ensemble import PREFIX, Ensemble, Member

GraphOf = Callable[[Member], onnx.ModelProto]
# As `View` does it: torch's antialiased bilinear filter stops at the border.
RESIZE: Final[dict[str, Any]] = {
    "mode": "linear",
    "antialias": 1,
    "exclude_outside": 1,
    "coordinate_transformation_mode": "half_pixel",
}


def ensemble_graph(ensemble: Ensemble, image_size: int, graph_of: GraphOf) -> onnx.ModelProto:
    """The graph of an ensemble; its members' weights are inputs, by their names in its state dict.

    Args:
        ensemble: The ensemble, in eval mode.
        image_size: Side of its input images in pixels.
        graph_of: Gives the graph of a member, whose weights are inputs.
    """
    parts = [
        compose.add_prefix(graph_of(member), f"{PREFIX}{i}.")
        for i, member in enumerate(ensemble.members)
    ]
    made = _Glue()
    for i, member in enumerate(ensemble.members):
        made.view(ensemble, i, member, image_size)
    each = [made.log_probabilities(i, one) for i, one in enumerate(ensemble.members)]
    made.constant("log_count", np.array(math.log(len(each)), np.float32))
    num_classes = len(ensemble.members[0].order)
    graph = helper.make_graph(
        [*made.nodes, *(n for part in parts for n in part.graph.node), *made.after, *_mean(each)],
        "ensemble",
        [_value(INPUT, (BATCH, 3, image_size, image_size)), *_weights(parts)],
        [_value(OUTPUT, (BATCH, num_classes))],
        [
            *(one for part in parts for one in part.graph.initializer),
            *made.constants,
        ],
    )
    first = parts[0]
    return helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)


class _Glue:
    """The nodes around the members, and their constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def view(self, ensemble: Ensemble, i: int, member: Member, image_size: int) -> None:
        """From the ensemble's input to that of a member."""
        view, own = ensemble.views[i], f"{PREFIX}{i}.{INPUT}"
        scale, shift = (
            self.constant(f"view_{i}_{name}", getattr(view, name).cpu().numpy()[None])
            for name in ("scale", "shift")
        )
        last = self._node("Mul", [INPUT, scale], f"view_{i}_scaled")
        if member.image_size == image_size:
            self._node("Add", [last, shift], own)
            return
        last = self._node("Add", [last, shift], f"view_{i}_shifted")
        size = np.array([3, member.image_size, member.image_size])
        batch = self._node("Shape", [last], f"view_{i}_batch", start=0, end=1)
        sizes = [batch, self.constant(f"view_{i}_side", size)]
        sizes = ["", "", self._node("Concat", sizes, f"view_{i}_sizes", axis=0)]
        self._node("Resize", [last, *sizes], own, **RESIZE)

    def log_probabilities(self, i: int, member: Member) -> str:
        """From a member's output to its log-probabilities in the ensemble's order of classes."""
        name, order = f"{PREFIX}{i}.{OUTPUT}", f"log_{i}_order"
        if member.order != tuple(range(len(member.order))):
            self.constant(order, np.array(member.order))
            self.after.append(
                helper.make_node("Gather", [name, order], [f"log_{i}_ordered"], axis=1)
            )
            name = f"log_{i}_ordered"
        self.after.append(helper.make_node("LogSoftmax", [name], [f"log_{i}"], axis=1))
        return f"log_{i}"

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def _mean(each: Sequence[str]) -> Iterator[onnx.NodeProto]:
    """The logarithm of the mean of probabilities, by the largest, so that none is lost."""
    yield helper.make_node("Max", each, ["log_most"])
    for name in each:
        yield helper.make_node("Sub", [name, "log_most"], [f"{name}_less"])
        yield helper.make_node("Exp", [f"{name}_less"], [f"{name}_share"])
    yield helper.make_node("Sum", [f"{name}_share" for name in each], ["log_sum"])
    yield helper.make_node("Log", ["log_sum"], ["log_of_sum"])
    yield helper.make_node("Add", ["log_of_sum", "log_most"], ["log_together"])
    yield helper.make_node("Sub", ["log_together", "log_count"], [OUTPUT])


def _weights(parts: Sequence[onnx.ModelProto]) -> Iterator[onnx.ValueInfoProto]:
    """The inputs of the members that are no images."""
    for i, part in enumerate(parts):
        yield from (one for one in part.graph.input if one.name != f"{PREFIX}{i}.{INPUT}")


def _value(name: str, shape: tuple[str | int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
