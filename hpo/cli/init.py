"""The command that writes a first search file for a folder of images and this machine."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import AsJson
from hpo.cli.output import print_json, print_note, print_rows, progress_of_listing
from hpo.program import command_line
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.execution.profile import Cost
    from hpo.proposal.rules import Facts, Proposal
    from sgformer.data.image_folder import ImageFolder

UNREADABLE = 0.01  # share of images from which on a search refuses a data set


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A folder of {train,val,test}/<class>/<images>, of tar shards or parquet files; "
            "or a .csv or .parquet manifest.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("search.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
    measure: Annotated[
        bool, typer.Option(help="Train a few steps, to tell how long a search takes.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Writes a first search file for these images and this machine, with the reasons.

    Lists the images, reads some of their headers, and looks for pretrained weights; the hub is
    asked whether it has them, and nothing is downloaded.
    """
    from hpo.proposal.file import search_file
    from hpo.proposal.rules import propose
    from hpo.run_folder import replace_text
    from sgformer.data.image_folder import read_image_folder
    from sgformer.data_config import DataConfig

    _check_output(output, force=force)
    images = read_image_folder(DataConfig(data_dir=folder.absolute()), progress_of_listing())
    facts = _facts(images)
    proposal = propose(facts)
    config = _loaded(search_file(proposal))
    cost = _measured(config, images) if measure else None
    proposal = _with_budget(proposal, facts, config, cost)
    text = search_file(proposal)
    config = _loaded(text)
    replace_text(output, text)
    for note in _notes(facts, cost):
        print_note(note)
    if as_json:
        print_json(_as_json(facts, proposal, cost, output))
    else:
        print_rows(_rows(facts, proposal, config, output))


def _check_output(output: Path, *, force: bool) -> None:
    """Raises InputError if the file is there already, or its folder is not."""
    if output.is_dir():
        raise InputError(f"--output: is a folder, not a file to write: {output}")
    if output.exists() and not force:
        raise InputError(f"--output: {output} is there already; --force replaces it")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output: there is no folder {output.parent} to write {output.name} to")


def _facts(images: "ImageFolder") -> "Facts":
    from hpo.proposal.machine import this_machine, weights_of
    from hpo.proposal.rules import Facts, candidates
    from sgformer.data_check.glance import glance_at

    glance, machine = glance_at(images), this_machine()
    return Facts(glance, machine, weights_of(candidates(machine)))


def _loaded(text: str) -> "SearchConfig":
    """The text as a search reads it, with every check."""
    from hpo.config.loading import load_search_config

    with tempfile.TemporaryDirectory(prefix="sgformer-init-") as folder:
        path = Path(folder) / "search.yaml"
        path.write_text(text, encoding="utf-8")
        return load_search_config(path)[0]


def _measured(config: "SearchConfig", images: "ImageFolder") -> "Cost":
    from hpo.proposal.measure import measured_default
    from sgformer.data.image_folder import checked_folder

    train = config.train
    print(
        f"measuring a training of {train.model.name} at {train.data.image_size} pixels, batches "
        f"of {train.optimizer.batch_size}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    assert images.files is not None  # they were listed
    return measured_default(config, checked_folder(train.data, images.files))


def _with_budget(
    proposal: "Proposal", facts: "Facts", config: "SearchConfig", cost: "Cost | None"
) -> "Proposal":
    from dataclasses import replace

    from hpo.proposal.budget import budget

    seconds = None if cost is None or cost.problem else cost.epoch_seconds
    choice = budget(config, facts.num_slots, seconds)
    return replace(proposal, choices=(choice, *proposal.choices))


def _notes(facts: "Facts", cost: "Cost | None") -> list[str]:
    """What a user should know before the search."""
    images = facts.images
    notes = list(images.passed_over)
    if images.num_unknown >= UNREADABLE * images.num_looked_at:
        notes.append(
            f"{images.num_unknown} of {images.num_looked_at} images that were looked at tell no "
            f"size; a search refuses 1 % of unreadable images: `data check {images.folder}`"
        )
    if facts.wants_weights and not facts.usable_weights:
        notes += [one.problem for one in facts.weights[:1]]
    if cost is not None and cost.problem is not None:
        notes.append(f"the default configuration cannot be trained here: {cost.problem}")
    return notes


def _as_json(
    facts: "Facts", proposal: "Proposal", cost: "Cost | None", output: Path
) -> dict[str, Any]:
    images = facts.images
    sizes = asdict(images.class_sizes) | {"ratio": images.class_sizes.ratio}
    return {
        "file": str(output),
        "recipe": proposal.recipe,
        "why": proposal.why,
        "images": asdict(images) | {"class_sizes": sizes},
        "machine": asdict(facts.machine),
        "weights": [asdict(one) for one in facts.weights],
        "choices": [
            {"setting": ".".join(one.path), "value": one.value, "why": one.why}
            for one in proposal.choices
        ],
        "epoch_seconds": None if cost is None else cost.epoch_seconds,
        "problem": None if cost is None else cost.problem,
    }


def _rows(
    facts: "Facts", proposal: "Proposal", config: "SearchConfig", output: Path
) -> dict[str, str]:
    images, machine = facts.images, facts.machine
    rows = {"folder": images.folder}
    for name, split in images.splits.items():
        rows[name] = f"{split.images:,} images in {split.classes:,} classes"
        if name == "val" and images.val_is_of_train:
            rows[name] += ", split off train"
    sizes, side = images.class_sizes, images.shorter_side
    rows["classes"] = f"largest {sizes.largest:,}, smallest {sizes.smallest:,} images to train"
    rows["shorter side"] = (
        f"median {side.median:,.0f} pixels, {side.smallest:,} to {side.largest:,}, of "
        f"{images.num_looked_at:,} images"
    )
    rows["machine"] = f"{machine.cpus} CPUs, {machine.memory_bytes / 1e9:.0f} GB"
    if machine.gpus:
        gpu = f"{machine.gpus} x {machine.gpu_name}, {machine.gpu_bytes / 1e9:.0f} GB each"
        rows["machine"] += f"; {gpu}"
    rows |= {f"weights of {one.model}": one.whereabouts for one in facts.weights}
    rows["chosen"] = proposal.why
    rows["default"] = f"{config.train.model.name} at {config.train.data.image_size} pixels"
    rows["cost"] = proposal.choices[0].why
    rows["written"] = str(output)
    rows["next"] = f"{command_line('search', output, '--dry-run')}, then without --dry-run"
    return rows
