"""A run's own copies of the weights that its trainings start from, in the run's folder.

The copies are made once, when a search starts. So every node finds them, a resumed search starts
its trials from the same weights, and the sources may go. Importing this module is cheap; torch is
imported by a search that starts from weights.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.config.combinations import combinations
from hpo.config.schema import SearchConfig
from hpo.config.search_space import apply_params
from hpo.errors import RunError, StudyError
from hpo.kept_weights import (
    NUM_DIGITS,
    digest_of,
    read_index,
    stored_weights,
    weights_folder,
    write_index,
)
from hpo.run_folder import RunFolder
from sgformer.config import ModelConfig, TrainConfig
from sgformer.disk import noticing_full_disk
from sgformer.errors import CheckpointError, ConfigError, InputError

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights, Weights

MODEL: Final = ("model.name", "model.pretrained", "model.checkpoint")


@dataclass(frozen=True)
class FoundWeights:
    """Weights of a model, which were read and which fit the model.

    Attributes:
        model: The model, and the source of its weights.
        weights: The weights.
        origin: The SHA-256 of the source's file; None: the weights come from a hub.
        text: What is loaded into the model, in words.
    """

    model: ModelConfig
    weights: "Weights"
    origin: str | None
    text: str

    def in_words(self) -> str:
        size = self.weights.num_bytes / 1e6
        return f"{self.model.name} starts from {self.text} ({size:.1f} MB)"


def find_weights(
    config: SearchConfig, known: Mapping[str, Any] | None = None
) -> Iterator[FoundWeights]:
    """Reads all weights that the space can ask for, and checks that they fit.

    Args:
        config: The config of the search.
        known: The keys of weights that the run has already, which are passed over.

    Raises:
        InputError: Weights cannot be found or read, or do not fit their model.
    """
    if not _may_use_weights(config):
        return
    models: dict[str, list[TrainConfig]] = {}
    for params in combinations(config.train, config.space, (*MODEL, "data.image_size")):
        train = apply_params(config.train, params, "space")
        if key := _key(train.model):
            models.setdefault(key, []).append(train)
    new = {key: trains for key, trains in models.items() if key not in (known or {})}
    if not new:
        return
    from sgformer.data.image_folder import read_image_folder

    classes = read_image_folder(config.train.data).classes
    for trains in new.values():
        try:
            yield _find(trains, classes)
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{_setting(config, trains[0].model)}: {error}") from None


def keep_weights(
    config: SearchConfig,
    run: RunFolder,
    note: Callable[[str], None],
    predecessor: RunFolder | None = None,
) -> None:
    """Copies all weights that the space can ask for to the run's folder, unless it has them.

    Args:
        config: The config of the search.
        run: The run's folder.
        note: Is told of each source of weights when it is copied, and of each that has changed
            since, in place of which the run's copy is used.
        predecessor: The run whose trials are carried over, with its weights; None: there is none.

    Raises:
        InputError: Weights cannot be found or read, or do not fit their model.
        StudyError: A copy of the run is missing or damaged.
    """
    index = read_index(run)
    if predecessor is not None and (carried := read_index(predecessor)):
        shutil.copytree(weights_folder(predecessor), weights_folder(run), dirs_exist_ok=True)
        index = carried | index
        write_index(run, index)
    for entry in index.values():
        _check_copy(run, entry)
    for source in dict.fromkeys(filter(None, map(_changed_source, index.values()))):
        note(
            f"{source} has changed since this run began, which goes on with its own copy of the "
            "former weights; a search with the new ones takes another study.name"
        )
    for found in find_weights(config, known=index):
        with noticing_full_disk(run.path):
            index[_key(found.model)] = _store(run, found)
            write_index(run, index)
        note(found.in_words())


def weights_of(run: RunFolder, model: ModelConfig) -> "StoredWeights | None":
    """The run's copy of the weights that a training starts from; None: it starts from none.

    Raises:
        RunError: The run has no such copy.
    """
    key = _key(model)
    if not key:
        return None
    return stored_weights(run, key)


def check_reachable(weights: "StoredWeights | None") -> None:
    """Raises RunError if this machine does not see the run's copy of the weights."""
    if weights is not None and not weights.path.is_file():
        raise RunError(
            f"the weights {weights.path} are not there on {socket.gethostname()}: the run folder "
            "must be shared by all nodes (--output-dir)"
        )


def _may_use_weights(config: SearchConfig) -> bool:
    return bool(_key(config.train.model)) or any(path in config.space for path in MODEL[1:])


def _key(model: ModelConfig) -> str:
    """The name of the weights in the index; empty: the model starts from no weights."""
    if model.checkpoint is not None:
        return f"{model.name} from {model.checkpoint}"
    return f"{model.name} pretrained" if model.pretrained else ""


def _setting(config: SearchConfig, model: ModelConfig) -> str:
    path = "model.pretrained" if model.checkpoint is None else "model.checkpoint"
    return f"space.{path}" if path in config.space else f"train.{path}"


def _find(trains: list[TrainConfig], classes: tuple[str, ...]) -> FoundWeights:
    """The weights of a model, which must fit it at each of the configurations' image sizes."""
    import torch

    from sgformer.model.build import create_model
    from sgformer.model.weight_sources import load_weights, source_file
    from sgformer.model.weights import fitted, renamed

    model = trains[0].model
    path, weights = source_file(model), load_weights(model)
    assert weights is not None
    text = ""
    for train in trains:
        with torch.device("meta"):  # shapes without memory
            empty = create_model(train.resolved(), len(classes))
        _, report = fitted(empty, model.name, weights, classes, extends=train.extension.is_used)
        if report.in_order:
            weights = renamed(empty, weights)
        text = text or str(report)
    return FoundWeights(model, weights, None if path is None else digest_of(path), text)


def _store(run: RunFolder, found: FoundWeights) -> dict[str, Any]:
    """Writes the weights to a file that is named after its content; returns their entry."""
    from safetensors.torch import save_file

    from sgformer.model.weight_files import HEADER

    weights = found.weights
    header = {"classes": weights.classes}  # no path, so that equal weights are equal files
    # Copies, because tensors of a model may share their memory, which the format refuses.
    tensors = {name: t.detach().clone().contiguous() for name, t in weights.tensors.items()}
    folder = weights_folder(run)
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{os.getpid()}.tmp"
    try:
        save_file(tensors, temporary, {HEADER: json.dumps(header)})
        digest = digest_of(temporary)
        path = folder / f"{found.model.name}-{digest[:NUM_DIGITS]}.safetensors"
        temporary.chmod(0o644)  # safetensors lets only the owner read it
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return {
        "source": weights.source,
        "file": path.name,
        "sha256": digest,
        "checkpoint": None if found.model.checkpoint is None else str(found.model.checkpoint),
        "origin_sha256": found.origin,
        "loaded": found.text,
    }


def _check_copy(run: RunFolder, entry: Mapping[str, Any]) -> None:
    copy = weights_folder(run) / entry["file"]
    if not copy.is_file() or digest_of(copy) != entry["sha256"]:
        raise StudyError(
            f"the run's copy of its weights, {copy}, is missing or damaged; put it back, or begin "
            "a new search under another study.name"
        )


def _changed_source(entry: Mapping[str, Any]) -> str | None:
    """The setting and its file if the file's content is another than that of the run's copy."""
    from sgformer.model.weight_files import file_of

    source: str | None = entry["checkpoint"]
    if source is None:
        return None
    try:
        digest = digest_of(file_of(Path(source)))
    except (InputError, OSError):
        return None  # it is gone, which the run does not mind
    setting = entry.get("setting", "model.checkpoint")
    return f"{setting}: {source}" if digest != entry["origin_sha256"] else None
