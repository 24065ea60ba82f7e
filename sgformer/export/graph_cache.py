"""Keeps the graphs of exported architectures, so that PyTorch exports each once on a machine."""

import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from torch import nn

import sgformer.model
from sgformer.config import TrainConfig
from sgformer.data.cache_place import cache_place, make_place
from sgformer.export import graph as graph_module
from sgformer.export.ensemble_graph import ensemble_graph
from sgformer.export.graph import trace
from sgformer.model.ensemble import Ensemble, Member

FOLDER: Final = "graphs"
MOST_GRAPHS: Final = 64  # of a few hundred kB each
LIBRARIES: Final = ("torch", "timm", "onnx", "onnx-ir", "onnxscript")


def graph_of(model: nn.Module, config: TrainConfig) -> onnx.ModelProto:
    """The graph of a configured model, from the cache if an equal architecture was exported.

    That of an ensemble is made of its members' graphs.

    The cache lies in `graphs` under the folder of decoded images' caches. Where nothing can be
    read or written, the graph is made anew.

    Raises:
        ExportError: PyTorch cannot export the model.
    """
    if isinstance(model, Ensemble):
        return ensemble_graph(model, config.data.image_size, partial(_of_member, config))
    side, place = config.data.image_size, cache_place(config.data.cache_dir)
    path = place / FOLDER / f"{_key(model, config)}.onnx"
    with contextlib.suppress(OSError, DecodeError):
        kept: onnx.ModelProto = onnx.load(path)
        os.utime(path)
        return kept
    graph = trace(model, side, config.model.name)
    with contextlib.suppress(OSError):
        make_place(place, config.data.cache_dir)
        path.parent.mkdir(exist_ok=True)
        _write(path, graph.SerializeToString())
    return graph


def _of_member(config: TrainConfig, member: Member) -> onnx.ModelProto:
    """The graph of an ensemble's member; the ensemble's config tells where graphs are kept."""
    model = config.model.model_copy(update={"name": member.name})
    data = config.data.model_copy(update={"image_size": member.image_size})
    return graph_of(member.model, config.model_copy(update={"model": model, "data": data}))


def _key(model: nn.Module, config: TrainConfig) -> str:
    """Differs wherever the graph may: dropout rates do not count, which evaluation leaves out."""
    weights = {name: (list(t.shape), str(t.dtype)) for name, t in model.state_dict().items()}
    name = config.model.name.partition(".")[0]  # without the tag of pretrained weights
    told = [name, config.data.image_size, weights, _code()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """A hash of the code that makes a graph: of ours its text, of libraries their versions."""
    own = sorted(Path(sgformer.model.__path__[0]).glob("*.py"))
    digest = hashlib.sha256(inspect.getsource(graph_module).encode())
    for path in own:
        digest.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    return digest.hexdigest() + " ".join(versions)


def _write(path: Path, content: bytes) -> None:
    """Writes a whole file or none, and removes the graphs that were not used for longest."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
    by_age = sorted(path.parent.glob("*"), key=lambda kept: kept.stat().st_mtime)
    for old in by_age[:-MOST_GRAPHS]:
        old.unlink(missing_ok=True)
