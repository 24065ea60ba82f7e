"""The index of the copies of weights that a run's folder keeps, each named after its content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.errors import RunError
from hpo.run_folder import RunFolder, replace_text

if TYPE_CHECKING:
    from sgformer.model.weight_files import StoredWeights

INDEX: Final = "index.json"
NUM_DIGITS: Final = 12  # of a digest, in names of files and in messages


def stored_weights(run: RunFolder, key: str) -> "StoredWeights":
    """The copy of an entry of the index; raises RunError if there is none."""
    from sgformer.model.weight_files import StoredWeights

    entry = read_index(run).get(key)
    if entry is None:
        raise RunError(
            f"{weights_folder(run) / INDEX} has no weights of {key}; --resume makes a copy"
        )
    path = weights_folder(run).absolute() / entry["file"]
    return StoredWeights(path, entry["sha256"], entry["source"])


def read_index(run: RunFolder) -> dict[str, Any]:
    path = weights_folder(run) / INDEX
    if not path.is_file():
        return {}
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


def write_index(run: RunFolder, index: Mapping[str, Any]) -> None:
    replace_text(weights_folder(run) / INDEX, json.dumps(index, indent=2) + "\n")


def weights_folder(run: RunFolder) -> Path:
    return run.path / "weights"


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
