"""Names of classes: one class in both of Unicode's forms, and how messages spell a split."""

import unicodedata
from pathlib import Path

from sgformer.errors import DataError
from sgformer.sources.image_files import ImageFiles


def spelt(root: Path, split: str) -> str:
    """A split for messages: its folder if it has one."""
    return str(root / split) if (root / split).is_dir() else f"split {split} of {root}"


def composed(class_name: str) -> str:
    """The class name in NFC, the form in which class names are compared."""
    return unicodedata.normalize("NFC", class_name)


def by_composed_name(root: Path, split: str, files: ImageFiles) -> dict[str, str]:
    """Sorted names of a split's class folders; the keys are the names in composed form."""
    folders: dict[str, str] = {}
    for name in files.class_folders[split]:
        if not _is_text(name):
            raise DataError(
                f"name of a class folder is not UTF-8: {str(root / split / name)!r}; rename it"
            )
        other = folders.setdefault(composed(name), name)
        if other != name:
            raise DataError(
                f"{spelt(root, split)} has two folders or labels of one class, in two Unicode "
                f"forms: {other!a} and {name!a}; use one of them"
            )
    return folders


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
