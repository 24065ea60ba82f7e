"""The command data check: what a data set holds, and whether a search would accept it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import AsJson
from hpo.cli.output import print_json, print_rows, progress_of, progress_of_listing
from sgformer.errors import MOST_NAMES, DataError

if TYPE_CHECKING:
    from sgformer.data_check.check import ClassSizes, DataCheck, EqualFound, SidesFound
    from sgformer.images.equal_images import EqualImages

data = typer.Typer(help="Looks at images: `data check DIR`.", no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Keeps `check` a command of its own; typer would merge a single one into the group."""


@data.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A folder of {train,val,test}/<class>/<images>, of tar shards or parquet files; "
            "or a .csv or .parquet manifest.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """What a data set holds, and whether a search would accept it; writes nothing.

    Every image is decoded, as a search does. Exit code 2, with the reason, if it is not accepted.
    """
    from sgformer.data_check.check import check_folder
    from sgformer.data_config import DataConfig

    with progress_of("checking images") as progress:
        found = check_folder(DataConfig(data_dir=folder), progress_of_listing(), progress)
    if as_json:
        print_json(_as_json(found))
    else:
        print_rows(_rows(found))
    if found.refused is not None:
        raise DataError(found.refused)


def _as_json(found: "DataCheck") -> dict[str, Any]:
    """All of it; shares are of the readable images, 0..1."""
    values = asdict(found)
    sizes = found.class_sizes
    del values["first_of_trait"], values["num_unreadable"]
    values["class_sizes"] = None if sizes is None else asdict(sizes) | {"ratio": sizes.ratio}
    values["traits"] = {
        name.replace(" ", "_"): {
            "images": found.traits.get(trait, 0),
            "share": found.share(trait),
            "first": found.first_of_trait.get(trait),
        }
        for name, trait in _traits().items()
    }
    values["unreadable"] = {"images": found.num_unreadable, "first": found.unreadable}
    return values


def _traits() -> dict[str, str]:
    """The traits that are told, by what the rows call them."""
    from sgformer.data_check.survey import GREY
    from sgformer.images.decoding import CLIPPED, DEEP, FIRST_FRAME, NEGATIVE, TRANSPARENT

    return {
        "over 8 bits": DEEP,
        "beyond white": CLIPPED,
        "below zero": NEGATIVE,
        "transparent": TRANSPARENT,
        "grey": GREY,
        "several frames": FIRST_FRAME,
    }


def _rows(found: "DataCheck") -> dict[str, str]:
    rows = {"folder": found.folder}
    for name, split in found.splits.items():
        rows[name] = f"{_images(split.images)} in {split.classes:,} classes"
        if name == "val" and found.val_is_of_train:
            rows[name] += ", split off train"
    rows |= _class_rows(found.class_sizes)
    rows |= _side_rows({"shorter side": found.shorter_side, "longer side": found.longer_side})
    formats = ", ".join(f"{name} {count:,}" for name, count in found.formats.items())
    rows |= {"formats": formats or "none", **_trait_rows(found)}
    bad = found.num_unreadable
    rows["unreadable"] = f"{bad:,}{_share(bad, found.num_images)}" + (
        f": {_names(found.unreadable, bad)}" if bad else ""
    )
    rows |= _equal_rows(found.equal)
    return rows | {"passed over": "; ".join(found.passed_over) or "nothing"}


def _class_rows(sizes: "ClassSizes | None") -> dict[str, str]:
    if sizes is None:
        return {}
    ratio = f"{sizes.ratio:.3g} to 1" if sizes.smallest else "one has no images"
    return {
        f"classes of {sizes.split}": f"largest {sizes.largest:,} ({sizes.largest_class!r}), "
        f"median {sizes.median:,g}, smallest {sizes.smallest:,} ({sizes.smallest_class!r}): "
        f"{ratio}"
    }


def _side_rows(sides: "dict[str, SidesFound | None]") -> dict[str, str]:
    return {
        name: f"smallest {side.smallest:,}, median {side.median:,.0f}, largest {side.largest:,}"
        for name, side in sides.items()
        if side is not None
    }


def _trait_rows(found: "DataCheck") -> dict[str, str]:
    """A row for each trait; those that say that values do not fit only if there are any."""
    from sgformer.images.decoding import CLIPPED, DEEP, NEGATIVE

    rows = {}
    for name, trait in _traits().items():
        count = found.traits.get(trait, 0)
        if count or trait not in (CLIPPED, NEGATIVE):
            first = f", such as {found.first_of_trait[trait]!r}" if count else ""
            rows[name] = f"{count:,}{_share(count, found.num_readable)}{first}"
    if found.traits.get(DEEP) and found.rules.max_value:
        rows["over 8 bits"] += f"; the value {found.rules.max_value:g} becomes 255"
    return rows


def _equal_rows(equal: "EqualFound") -> dict[str, str]:
    rows = {f"  within {split}": _equal(one) for split, one in equal.within.items()}
    for one in equal.across:
        remark = f"; metrics of {one.split} are too good"
        rows[f"  {one.split} and {one.earlier}"] = _equal(one) + remark
    if equal.in_several_classes is not None:
        remark = "; which class is right is not known"
        rows["  other class"] = _equal(equal.in_several_classes) + remark
    return {"equal images": "byte for byte:" if rows else "none", **rows}


def _equal(equal: "EqualImages") -> str:
    first, twin = equal.first
    return f"{_images(equal.images)}, such as {first!r}, which is {twin!r}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _share(count: int, total: int) -> str:
    """The share as text, such as " (0.8 %)"; nothing for none."""
    if not count:
        return ""
    share = 100 * count / total
    return " (below 0.1 %)" if share < 0.1 else f" ({share:.1f} %)"


def _names(names: tuple[str, ...], total: int) -> str:
    more = f" and {total - len(names):,} more" if total > MOST_NAMES else ""
    return ", ".join(map(repr, names)) + more
