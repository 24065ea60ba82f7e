"""The images of an extension: the new ones, and those that the extended model has kept.

NAME-images/images.csv             a manifest of all images; new ones stay where they are
NAME-images/images.classes.json    the classes in the order of the outputs, new ones last
NAME-images/replay/                train exemplars of the old classes
NAME-images/val/, test/            kept images to measure by
NAME-images/new/                   new images that lay in tar or parquet files
NAME-images/source.json            what they were made of
"""

import csv
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hpo.kept_weights import digest_of
from hpo.model_files import ModelFiles
from sgformer.data.class_order import order_file
from sgformer.data.image_folder import ImageFolder
from sgformer.data.replay import FOLDER, replay_path
from sgformer.disk import noticing_full_disk
from sgformer.errors import DataError, InputError, listed
from sgformer.sources.class_names import composed
from sgformer.sources.image_files import SPLITS, SUFFIXES

MANIFEST: Final = "images.csv"
SOURCE: Final = "source.json"
KINDS: Final = ("herding", "random")
# The only names that a file of exemplars has; others, such as ../x, are refused.
MEMBER: Final = re.compile(r"(\d{5,})/(\d{5,})(\.[a-z]+)")
Row = tuple[str, str, str]  # path, class, split


@dataclass(frozen=True)
class Extended:
    """An extension's images.

    Attributes:
        manifest: The file to train with.
        old: The classes of the model that is extended, in their order.
        new: The new classes.
        num_train: Images that a training uses, if it takes all exemplars of a choice.
        notes: What a user should know, a sentence each.
    """

    manifest: Path
    old: tuple[str, ...]
    new: tuple[str, ...]
    num_train: int
    notes: tuple[str, ...]


def write_extended_images(
    folder: Path, base: Path, old: tuple[str, ...], images: ImageFolder
) -> Extended:
    """Writes the images of an extension, unless the folder has them.

    Args:
        folder: The folder to make.
        base: The folder of the model that is extended, with its exemplars.
        old: Its classes.
        images: The new images.

    Raises:
        InputError: The folder was made of other images or of another model.
        DataError: There is no new class, or the model has no exemplars, or damaged ones.
    """
    new = new_classes(old, images)
    names, notes = _splits(base, images)
    facts = {
        "base": digest_of(ModelFiles(base).checkpoint),
        "images": str(images.root.resolve()),
        "num_images": len(images.names),
        "classes": [*old, *new],
    }
    if folder.exists():
        _check_same(folder, facts)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with noticing_full_disk(folder.parent):
            _write_whole(folder, base, old, images, names, facts)
    num_kept = sum(1 for _ in (folder / FOLDER / KINDS[0]).rglob("*.*"))
    num_train = num_kept + len(images.splits["train"])
    return Extended(folder / MANIFEST, old, new, num_train, notes)


def new_classes(old: Sequence[str], images: ImageFolder) -> tuple[str, ...]:
    """The classes of the new images that the model lacks; names are compared in composed form.

    Raises:
        DataError: There is none; or one differs from an old class only in case or spaces, as
            after a renaming.
    """
    known = {composed(name): name for name in old}
    new = tuple(name for name in images.classes if composed(name) not in known)
    if not new:
        raise DataError(
            f"{images.root} has no new class: the model knows {listed(images.classes)}; `search` "
            "with train.model.checkpoint goes on with more images of known classes"
        )
    alike = {_letters(name): name for name in old}
    renamed = [(alike[_letters(name)], name) for name in new if _letters(name) in alike]
    if renamed:
        was, now = renamed[0]
        raise DataError(
            f"{images.root}: class {now!r} differs from the model's class {was!r} only in case "
            "or spaces. An extension keeps all classes under their names and in their "
            f"order, and removes, renames or reorders none; name the folder {was!r} if it has "
            "more images of that class, or give the new class another name"
        )
    return new


def _letters(name: str) -> str:
    return re.sub(r"[\s_]+", "_", composed(name).casefold().strip())


def _splits(base: Path, images: ImageFolder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The splits of the extension, and a note on what is left out."""
    folder = ModelFiles(base).exemplars
    if not (folder / "val.tar").is_file():
        raise DataError(
            f"{base} has no exemplars (no file {folder / 'val.tar'}): the model was delivered "
            "with extension.keep_exemplars 0, or by an earlier version; `retrain RUN`, where its "
            "images are still there, delivers it anew with exemplars"
        )
    has = {"kept": (folder / "test.tar").is_file(), "new": "test" in images.splits}
    if all(has.values()):
        return SPLITS, ()
    notes: tuple[str, ...] = ()
    if any(has.values()):
        whose = "the new images" if has["new"] else "the model's kept images"
        notes = (f"there are no test metrics: only {whose} have a test split",)
    return SPLITS[:2], notes


def _check_same(folder: Path, facts: dict[str, Any]) -> None:
    """Raises InputError if the folder was made of something else."""
    file = folder / SOURCE
    if not file.is_file():
        raise InputError(
            f"{folder} is in the way: the images of the extension are put there; move it, or "
            "choose another --study-name"
        )
    was = json.loads(file.read_text(encoding="utf-8"))
    if changed := [name for name in facts if was.get(name) != facts[name]]:
        names = {"base": "another model", "images": f"other images ({was.get('images')})"}
        what = names.get(changed[0], "other images: their folder has changed since")
        raise InputError(
            f"{folder} was made of {what}; go on with those, or choose another --study-name"
        )


def _write_whole(
    folder: Path,
    base: Path,
    old: tuple[str, ...],
    images: ImageFolder,
    names: tuple[str, ...],
    facts: dict[str, Any],
) -> None:
    """Writes the folder under another name, and renames it when it is whole."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with (temporary / MANIFEST).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "label", "split"))
            rows.writerows(_kept_rows(temporary, ModelFiles(base).exemplars, old, names))
            rows.writerows(_new_rows(temporary, old, images, names))
        classes = json.dumps(facts["classes"], ensure_ascii=False, indent=0)
        order_file(temporary / MANIFEST).write_text(classes, encoding="utf-8")
        (temporary / SOURCE).write_text(json.dumps(facts), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _kept_rows(
    folder: Path, exemplars: Path, old: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[Row]:
    """Unpacks the model's exemplars."""
    for kind in (*KINDS, *(name for name in names if name != "train")):
        split = "train" if kind in KINDS else kind
        for label, rank, suffix, content in _members(exemplars / f"{kind}.tar", len(old)):
            path = (
                replay_path(kind, label, rank, suffix)
                if kind in KINDS
                else f"{kind}/{label:05}/{rank:05}{suffix}"
            )
            _write(folder / path, content)
            yield path, old[label], split


def _members(tar: Path, num_classes: int) -> Iterator[tuple[int, int, str, bytes]]:
    """Label, rank, suffix and content of each image in a file of exemplars."""
    try:
        with tarfile.open(tar) as opened:
            for member in opened:
                found = MEMBER.fullmatch(member.name)
                label = -1 if found is None else int(found[1])
                content = opened.extractfile(member) if member.isreg() else None
                if found is None or content is None or label >= num_classes:
                    raise DataError(f"{tar} is no file of exemplars: it has {member.name!r}")
                yield label, int(found[2]), found[3], content.read()
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read the model's exemplars {tar}: {error}") from None


def _new_rows(
    folder: Path, old: tuple[str, ...], images: ImageFolder, names: tuple[str, ...]
) -> Iterator[Row]:
    """The new images, by their own paths; those in tar or parquet files are unpacked."""
    known, source = {composed(name): name for name in old}, images.source
    for split in names:
        labelled = images.splits[split]
        for i, (name, label) in enumerate(zip(labelled.names, labelled.labels, strict=True)):
            spelt = images.classes[label]
            path = str(Path(source.where(name)).absolute())
            if images.places is not None:
                suffix = PurePosixPath(name).suffix.lower()
                place = folder / "new" / split / f"{i // 1000:05}"
                own = place / f"{i:08}{suffix if suffix in SUFFIXES else '.jpg'}"
                _write(own, source.read(name))
                path = str(own.relative_to(folder))
            yield path, known.get(composed(spelt), spelt), split


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
