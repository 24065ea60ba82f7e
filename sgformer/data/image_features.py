"""The features of a data set's images: a matrix on the disk, in the order of the images.

Every process of a node maps the same file, so 1.3 million vectors of 384 numbers take 2 GB of the
node's page cache once, and no shared memory. A training reads the rows of its batches from there.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sgformer.data.cache_place import cache_place, make_place
from sgformer.data_config import DataConfig
from sgformer.disk import noticing_full_disk
from sgformer.errors import DataError, listed
from sgformer.features.columns import FeatureColumns, FloatArray
from sgformer.features.encoders import TextEncoder, encoder_of, encoder_of_model
from sgformer.features.fitting import fitted_columns
from sgformer.features.scaling import Scaling, fitted_scaling
from sgformer.features.table import FeatureTable
from sgformer.locks import lock_of

if TYPE_CHECKING:
    import torch

FOLDER: Final = "features"
MATRIX, SCALING, FACTS = "matrix.npy", "scaling.npy", "facts.json"
LOCK: Final = "lock"
FORMAT: Final = 1
MOST_KEPT: Final = 8  # matrices in a node's cache; the least recently used go


@dataclass(frozen=True)
class ImageFeatures:
    """The features of all images of a data set.

    Attributes:
        columns: What the vectors consist of.
        scaling: Means and standard deviations over the train images.
        matrix: Vectors as the table has them, (images, size) float32; NaN where an image has none.
        digest: A hash of the table's content and of the encoder of its texts.
        notes: What a user should know of them, a sentence each.
    """

    columns: FeatureColumns
    scaling: Scaling
    matrix: FloatArray
    digest: str
    notes: tuple[str, ...]

    def of(self, positions: "torch.Tensor") -> "torch.Tensor":
        """The vectors (B, size) of images, by their positions (B,) among the images."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.matrix[positions.numpy()]))


@dataclass(frozen=True)
class ImageRows:
    """The images whose features are wanted.

    Attributes:
        names: The images' names, such as 'train/cat/1.png'.
        splits: Positions (N,) among the names, by split.
        is_folder: Whether the images lie in a folder, and not in a file that lists or holds them.
        content: A hash of the images' names and sizes.
    """

    names: Sequence[str]
    splits: Mapping[str, npt.NDArray[np.int64]]
    is_folder: bool
    content: str

    @cached_property
    def position_of(self) -> dict[str, int]:
        """The position of each name that a table may have.

        Images of a manifest or of parquet files are also known by the manifest's own path, without
        split and class.
        """
        found = {name: i for i, name in enumerate(self.names)}
        if not self.is_folder:
            found |= {name.split("/", 2)[2]: i for i, name in enumerate(self.names)}
        return found


def load_features(
    config: DataConfig, images: ImageRows, columns: FeatureColumns | None = None
) -> ImageFeatures:
    """The features of images, from this node's cache if they were read before.

    Args:
        config: Names the table, and the encoder of its texts.
        images: The images.
        columns: The columns of a trained model; None: they are fitted to the train images.

    Raises:
        DataError: The table cannot be read, names an image twice or no image at all, or has other
            columns than the model.
        ConfigError: There is no such encoder.
    """
    assert config.features is not None, "the config names a table"
    table, encoder = FeatureTable(config.features), _encoder(config, columns)
    digest = _digest(table, encoder)
    place = cache_place(config.cache_dir) / FOLDER
    folder = place / _key(digest, images, columns)
    build = partial(_build, table=table, images=images, columns=columns, encoder=encoder)
    with contextlib.suppress(OSError):
        return _opened(folder, digest)
    try:
        make_place(place.parent, config.cache_dir)
        place.mkdir(exist_ok=True)
        lock = lock_of(place / LOCK)
    except OSError:  # a node on which nothing can be kept
        with tempfile.TemporaryDirectory() as nowhere:
            build(Path(nowhere))
            return _opened(Path(nowhere), digest)
    with lock, noticing_full_disk(place):
        return _built(folder, digest, build)


def _encoder(config: DataConfig, columns: FeatureColumns | None) -> TextEncoder | None:
    setting = config.text_encoder
    if columns is None:
        return None if setting is None else encoder_of(setting)
    return None if columns.encoder is None else encoder_of_model(columns.encoder, setting)


def _built(folder: Path, digest: str, build: Callable[[Path], None]) -> ImageFeatures:
    """Builds a matrix beside its place and moves it there; removes those not used for longest."""
    with contextlib.suppress(OSError):  # another process was faster
        return _opened(folder, digest)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building.") as above:
        part = Path(above) / folder.name
        part.mkdir()
        build(part)
        part.replace(folder)
    kept = sorted(folder.parent.glob(f"*/{FACTS}"), key=lambda facts: facts.stat().st_mtime)
    for facts in kept[:-MOST_KEPT]:
        shutil.rmtree(facts.parent, ignore_errors=True)
    return _opened(folder, digest)


def _opened(folder: Path, digest: str) -> ImageFeatures:
    """The features in a folder; raises OSError if there are none."""
    facts = folder / FACTS
    values = json.loads(facts.read_text(encoding="utf-8"))
    matrix = np.load(folder / MATRIX, mmap_mode="r", allow_pickle=False)
    mean, std = np.load(folder / SCALING, allow_pickle=False)
    with contextlib.suppress(OSError):
        facts.touch()
    columns = FeatureColumns.from_metadata(values)
    assert columns is not None, "the facts have columns"
    return ImageFeatures(columns, Scaling(mean, std), matrix, digest, tuple(values["notes"]))


def _build(
    folder: Path,
    table: FeatureTable,
    images: ImageRows,
    columns: FeatureColumns | None,
    encoder: TextEncoder | None,
) -> None:
    """Writes matrix, scaling and facts."""
    train = images.splits.get("train", np.empty(0, np.int64))
    if columns is None:
        trained = set(train.tolist())
        columns = fitted_columns(
            table, lambda name: images.position_of.get(name) in trained, encoder
        )
    shape = (len(images.names), columns.size)
    matrix = _new_matrix(folder / MATRIX, shape)
    notes = _fill(matrix, table, images, columns, encoder)
    scaling = fitted_scaling(matrix, train, columns)
    np.save(folder / SCALING, np.stack([scaling.mean, scaling.std]))
    facts = columns.as_metadata() | {"notes": notes}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _new_matrix(path: Path, shape: tuple[int, int]) -> "np.memmap[Any, np.dtype[np.float32]]":
    """A file of NaN that is mapped; raises OSError if the disk has no room for it."""
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    with path.open("r+b") as file:  # a mapped page without room on the disk would end the process
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    matrix[:] = np.nan
    return matrix


def _fill(
    matrix: FloatArray,
    table: FeatureTable,
    images: ImageRows,
    columns: FeatureColumns,
    encoder: TextEncoder | None,
) -> list[str]:
    """Writes the vectors of the images that the table has; returns notes.

    Raises:
        DataError: The table names an image twice, or none at all.
    """
    is_there, others = np.zeros(len(matrix), np.bool_), list[str]()
    num_others, position_of = 0, images.position_of
    for rows in table.parts([one.name for one in columns.columns]):
        vectors, own = columns.encoded(rows, encoder), list[int]()
        for row, name in enumerate(rows.names):
            position = position_of.get(name)
            if position is None:
                num_others += 1
                others += [name] if len(others) < 3 else []
                continue
            if is_there[position]:
                raise DataError(f"{table.file} has image {name!r} twice; leave one row out")
            is_there[position] = True
            own.append(row)
        if own:
            matrix[[position_of[rows.names[row]] for row in own]] = vectors[own]
    if not is_there.any():
        raise DataError(
            f"{table.file} names none of the images: it has {listed(others)}, the images are "
            f"{listed(images.names[:3])}; its column path takes these names"
        )
    return _notes(table, images, is_there, num_others, others)


def _notes(
    table: FeatureTable,
    images: ImageRows,
    is_there: npt.NDArray[np.bool_],
    num_others: int,
    others: Sequence[str],
) -> list[str]:
    notes = []
    if num_others:
        notes.append(
            f"{num_others} rows of {table.file} are of none of these images, and passed over: "
            f"{listed(others)}"
        )
    for split, positions in images.splits.items():
        lacking = positions[~is_there[positions]]
        if len(lacking) == len(positions) and split == "train":
            raise DataError(f"no train image has features in {table.file}")
        if len(lacking):
            names = listed(images.names[int(i)] for i in lacking[:3])
            notes.append(
                f"{len(lacking)} of {len(positions)} {split} images have no features, and are "
                f"classified by the image alone: {names}"
            )
    return notes


def _digest(table: FeatureTable, encoder: TextEncoder | None) -> str:
    """A hash of the table's content and of the encoder."""
    table.kinds  # noqa: B018  raises DataError for a file that is none
    with table.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"" if encoder is None else encoder.digest.encode())
    return digest.hexdigest()[:32]


def _key(digest: str, images: ImageRows, columns: FeatureColumns | None) -> str:
    """The name of the folder of a matrix: it differs wherever the matrix may."""
    told = [FORMAT, digest, images.content, images.is_folder, len(images.names)]
    hashed = hashlib.sha256(json.dumps(told).encode())
    hashed.update(images.splits.get("train", np.empty(0, np.int64)).tobytes())
    if columns is not None:
        hashed.update(json.dumps([asdict(one) for one in columns.columns]).encode())
    return hashed.hexdigest()[:32]
