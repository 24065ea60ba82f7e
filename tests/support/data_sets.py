"""Writes an image folder's images as tar shards, manifests and parquet files."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

SPLITS = ("train", "val", "test")
ROWS_OF_A_GROUP = 7


def images_of(folder: Path, split: str) -> Iterator[tuple[Path, str]]:
    """The images of a split and their classes, mixed: one of each class in turn."""
    paths = sorted((folder / split).glob("*/*"), key=lambda path: (path.name, path.parent.name))
    return ((path, path.parent.name) for path in paths)


def splits_of(folder: Path) -> list[str]:
    return [split for split in SPLITS if (folder / split).is_dir()]


def write_shards(folder: Path, root: Path, *, labels: str = "cls", most: int = 25) -> Path:
    """Tar shards of at most `most` images, as WebDataset's own writer writes them.

    Args:
        folder: The image folder.
        root: Where the shards are written.
        labels: `cls`: a class file beside each image; `folder`: the class is the image's folder.
        most: Images of a shard.
    """
    import webdataset

    root.mkdir()
    for split in splits_of(folder):
        pattern = str(root / f"{split}-%03d.tar")
        with webdataset.ShardWriter(pattern, maxcount=most, verbose=0) as shards:
            for i, (path, label) in enumerate(images_of(folder, split)):
                key = f"{i:05d}" if labels == "cls" else f"{split}/{label}/{i:05d}"
                sample = {"__key__": key, path.suffix[1:]: path.read_bytes()}
                shards.write(sample | ({"cls": label} if labels == "cls" else {}))
    return root


def write_csv(folder: Path, root: Path) -> Path:
    """A manifest beside the folder, with paths that begin there; those of val are absolute."""
    file = root / "images.csv"
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["id", "label", "path", "split"])
        for split in splits_of(folder):
            for i, (path, label) in enumerate(images_of(folder, split)):
                shown = path if split == "val" else path.relative_to(root)
                writer.writerow([i, label, shown, split])
    return file


def write_parquet_manifest(folder: Path, root: Path) -> Path:
    """A manifest with labels that are numbers, and Hugging Face's name for val."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        (str(path), int(label), "validation" if split == "val" else split)
        for split in splits_of(folder)
        for path, label in images_of(folder, split)
    ]
    paths, labels, splits = zip(*rows, strict=True)
    file = root / "images.parquet"
    pq.write_table(pa.table({"path": paths, "label": labels, "split": splits}), file)
    return file


def write_parquet(folder: Path, root: Path, *, has_paths: bool = True) -> Path:
    """Parquet files as Hugging Face's `imagefolder` writes them, in small row groups.

    Their ClassLabel has numbers whose names are the classes, in another order than sorted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    classes = sorted({path.name for path in (folder / "train").iterdir()}, reverse=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": classes, "_type": "ClassLabel"},
    }
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for split in splits_of(folder):
        rows = list(images_of(folder, split))
        images = [
            {"bytes": path.read_bytes(), "path": path.name if has_paths else None}
            for path, _ in rows
        ]
        table = pa.table(
            {
                "image": pa.array(images, kind),
                "label": pa.array([classes.index(label) for _, label in rows], pa.int64()),
            }
        )
        name = "validation" if split == "val" else split
        half = len(rows) // 2
        for i, part in enumerate((table.slice(0, half), table.slice(half))):
            pq.write_table(
                part.replace_schema_metadata(about),
                root / "data" / f"{name}-{i:05d}-of-00002.parquet",
                row_group_size=ROWS_OF_A_GROUP,
            )
    return root
