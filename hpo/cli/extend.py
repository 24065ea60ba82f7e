"""The command that gives a run's model new classes."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.completion import complete_search_files
from hpo.cli.options import (
    DryRun,
    OutputDir,
    Overrides,
    RayAddress,
    Resume,
    RunDir,
    Storage,
    require_writable,
)
from hpo.cli.output import print_note, progress_of_listing
from hpo.cli.search import search
from sgformer.errors import InputError


def extend(
    run_dir: RunDir,
    data_dir: Annotated[
        Path, typer.Option(help="Images of the new classes, and any more of old ones.")
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="SEARCH.yaml",
            help="A search of how to extend. Default: one training as the run's winner.",
            autocompletion=complete_search_files,
        ),
    ] = None,
    max_forgetting: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The most that old classes may lose of their val top-1. Default: 0.02.",
        ),
    ] = None,
    output_dir: OutputDir = Path("runs"),
    study_name: Annotated[
        str | None, typer.Option(help="Default: the run's name and -extended.")
    ] = None,
    storage: Storage = None,
    ray_address: RayAddress = None,
    override: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Gives the run's model new classes, and says what it forgets of its old ones."""
    from hpo.run_folder import RunFolder
    from hpo.transfer.extended_images import write_extended_images
    from hpo.transfer.extended_search import (
        as_overrides,
        delivered_model,
        extension_settings,
        one_training,
        write_search_file,
    )
    from sgformer.data.image_folder import read_image_folder

    run = RunFolder(run_dir)
    base, model, classes = delivered_model(run)
    name = study_name or f"{run.path.resolve().name}-extended"
    if RunFolder(output_dir / name).path.resolve() == run.path.resolve():
        raise InputError(f"--study-name: {name!r} is the run that is extended; choose another")
    new = model.data.model_copy(update={"data_dir": data_dir.expanduser().absolute()})
    found = read_image_folder(new, progress_of_listing(), least=1)
    with _images_folder(output_dir, name, dry_run=dry_run) as folder:
        images = write_extended_images(folder, base, classes, found)
        for note in (*found.notes, *images.notes):
            print_note(note)
        settings = extension_settings(base, images, _white(base))
        if into is None:
            into = write_search_file(folder, one_training(run.load_config(), model, images))
        if max_forgetting is not None:
            settings["extension.max_forgetting"] = max_forgetting
        search(
            into, output_dir=str(output_dir), study_name=name, storage=storage,
            ray_address=ray_address, override=[*as_overrides(settings), *(override or ())],
            resume=resume, dry_run=dry_run,
        )  # fmt: skip


@contextlib.contextmanager
def _images_folder(output_dir: Path, name: str, *, dry_run: bool) -> Iterator[Path]:
    """Where the images of the extension are put; a dry run leaves none."""
    if not dry_run:
        require_writable(output_dir)
        yield output_dir / f"{name}-images"
        return
    with tempfile.TemporaryDirectory(prefix="sgformer-extend-") as folder:
        yield Path(folder) / f"{name}-images"


def _white(base: Path) -> float | None:
    """What became white in the deep images of the model's training; None: it had none."""
    from hpo.delivery.deliver import trained_images_of
    from hpo.model_files import ModelFiles

    known = trained_images_of(ModelFiles(base).checkpoint)
    return None if known is None else known.max_value
