"""The ONNX graph of an architecture, without weights, and the same graph with a model's weights.

PyTorch takes most of an export's time for the graph. It depends on the architecture alone, so it
is kept (`graph_cache`), and each model of that architecture only gets its weights put in.
"""

import contextlib
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants
from torch import nn

from sgformer.errors import ExportError
from sgformer.export.names import BATCH, FEATURES, INPUT, OUTPUT
from sgformer.model.fusion import is_fused, num_features

OPSET: Final = 20  # the first with Gelu
Tensors = Mapping[str, npt.NDArray[np.generic]]
# These repeat values: their results would be stored many times over.
REPEATING: Final = frozenset({"Expand", "Tile", "ConstantOfShape", "Range"})


def trace(model: nn.Module, image_size: int, name: str) -> onnx.ModelProto:
    """The graph of a model; its weights are inputs, by their names in the state dict.

    It carries no names of this machine: no stack traces, metadata or documentation.

    Args:
        model: The model, in evaluation mode.
        image_size: Side of the input images in pixels.
        name: The model's name, for messages.

    Raises:
        ExportError: PyTorch cannot export the model, or fixed the batch size, which it does not
            report itself.
    """
    model = model.cpu().eval()
    program = _exported(model, _example(model, image_size), name)
    for value in (*program.graph.inputs, program.graph.outputs[0]):
        batch = None if value.shape is None else value.shape[0]
        if not isinstance(batch, onnx_ir.SymbolicDim):
            raise ExportError(f"the exported model's {value.name} has a fixed batch axis: {batch}")
    for weight in model.state_dict().keys() & program.graph.initializers.keys():
        program.graph.inputs.append(program.graph.initializers.pop(weight))
    # onnxscript's optimizer also tries hundreds of rewriting rules, which takes six times as long
    # as all of this, and took no time off a prediction that could be told from noise.
    passes.InlinePass()(program)
    fold_constants(program, onnx_shape_inference=True)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        step(program)
    program.metadata_props.clear()
    graph: onnx.ModelProto = onnx_ir.to_proto(program)
    graph.graph.ClearField("metadata_props")
    del graph.graph.value_info[:]  # shapes within, which every reader infers
    return graph


def _example(model: nn.Module, image_size: int) -> tuple[torch.Tensor, ...]:
    """What the model is called with: images, and features if it takes any."""
    images = torch.zeros(2, 3, image_size, image_size)
    return (images, torch.zeros(2, num_features(model))) if is_fused(model) else (images,)


def _exported(model: nn.Module, example: tuple[torch.Tensor, ...], name: str) -> onnx_ir.Model:
    batch = torch.export.Dim(BATCH)
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                example,
                input_names=[INPUT, FEATURES][: len(example)],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=({0: batch},) * len(example),
                dynamo=True,
                optimize=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ExportError(f"PyTorch cannot export {name} to ONNX: {reason}") from None
    if program is None:
        raise ExportError("the ONNX exporter returned no program")
    return program.model


def with_weights(graph: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    """The model of a graph and these weights; equal tensors are stored once.

    What depends on weights alone, such as a transposed matrix, is computed here.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    inputs = [value for value in model.graph.input if value.name not in weights]
    given = {value.name: weights[value.name] for value in graph.graph.input if value not in inputs}
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    tensors: dict[str, npt.NDArray[np.generic]] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer
    }
    tensors |= {name: weight.detach().cpu().numpy() for name, weight in given.items()}
    _set_initializers(model, _folded(model, tensors))
    return model


def _folded(model: onnx.ModelProto, tensors: Tensors) -> Tensors:
    """Removes the nodes that only read these tensors; returns the tensors with their results."""
    known, constant, others = set(tensors), [], []
    for node in model.graph.node:
        is_constant = node.input and known.issuperset(filter(None, node.input))
        if is_constant and node.op_type not in REPEATING:
            constant.append(node)
            known.update(node.output)
        else:
            others.append(node)
    if not constant:
        return tensors
    used = {name for node in others for name in node.input}
    results = [name for node in constant for name in node.output if name in used]
    values = [onnx.helper.make_empty_tensor_value_info(name) for name in results]
    read = sorted({name for node in constant for name in node.input} & tensors.keys())
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in read]
    part = onnx.helper.make_model(
        onnx.helper.make_graph(constant, "constants", inputs, values),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    computed = ReferenceEvaluator(part).run(results, {name: tensors[name] for name in read})
    del model.graph.node[:]
    model.graph.node.extend(others)
    return {**tensors, **dict(zip(results, computed, strict=True))}


def _set_initializers(model: onnx.ModelProto, tensors: Tensors) -> None:
    """Stores the tensors that nodes read; equal ones once, under the first one's name."""
    stored: dict[tuple[object, ...], str] = {}
    del model.graph.initializer[:]
    names: dict[str, str] = {}
    used = {name for node in model.graph.node for name in node.input}
    for name, tensor in tensors.items():
        if name in used:
            digest = hashlib.sha256(tensor.tobytes()).digest()
            key = (tensor.dtype.str, tensor.shape, digest)
            names[name] = stored.setdefault(key, name)
            if names[name] == name:
                model.graph.initializer.append(numpy_helper.from_array(tensor, name))
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporter's log records, warnings and prints."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            Path(os.devnull).open("w") as devnull,
            contextlib.redirect_stderr(devnull),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
