"""The order of a manifest's classes, where a file beside the manifest says it.

An extended model keeps the order of its old classes, and the new ones follow. The order of names,
in which the classes of any other set are, would mix them.
"""

import json
from pathlib import Path
from typing import Final

from sgformer.errors import DataError, listed

SUFFIX: Final = ".classes.json"


def order_file(manifest: Path) -> Path:
    """The file that says the order of a manifest's classes: images.classes.json of images.csv."""
    return manifest.with_suffix(SUFFIX)


def order_of(root: Path) -> tuple[str, ...]:
    """The first classes of a data set in their order, new ones follow by name; empty: by name.

    Raises:
        DataError: The file beside the manifest is no list of names.
    """
    file = order_file(root)
    if root.is_dir() or not file.is_file():
        return ()
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the order of the classes in {file}: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} must be a list of the names of classes, as classes.json is")
    return tuple(names)


def in_order(classes: tuple[str, ...], first: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """The classes, sorted by name, with `first` ahead in its own order.

    Raises:
        DataError: A name in `first` is no class, or is there twice.
    """
    if not first:
        return classes
    missing = [name for name in first if name not in set(classes)]
    if missing or len(set(first)) < len(first):
        problem = f"has no images of {listed(missing)}" if missing else "has two equal names"
        raise DataError(f"{root}: the order of its classes ({order_file(root).name}) {problem}")
    known = set(first)
    return (*first, *(name for name in classes if name not in known))
