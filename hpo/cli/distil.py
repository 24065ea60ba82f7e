"""The command that searches a smaller model which a run's model teaches."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.completion import complete_search_files
from hpo.cli.options import (
    DryRun,
    Overrides,
    RayAddress,
    Resume,
    RunDir,
    Storage,
    StudyName,
)
from hpo.cli.search import search


def distil(
    run_dir: RunDir,
    into: Annotated[
        Path,
        typer.Option(
            metavar="SEARCH.yaml",
            help="The search of the student.",
            autocompletion=complete_search_files,
        ),
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="The student's images. Default: the run's.")
    ] = None,
    output_dir: Annotated[str, typer.Option(help="Where run folders are made.")] = "runs",
    study_name: StudyName = None,
    storage: Storage = None,
    ray_address: RayAddress = None,
    override: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> None:
    """Searches a smaller model that the run's model teaches, and says what the teacher adds."""
    from hpo.run_folder import RunFolder

    run = RunFolder(run_dir)
    images = data_dir or run.load_config().train.data.data_dir
    teacher = json.dumps(str(run.best))  # as YAML, in which a path may have any character
    taught = [f"train.distillation.teacher={teacher}", *(override or ())]
    search(
        into, data_dir=images, output_dir=output_dir, study_name=study_name, storage=storage,
        ray_address=ray_address, override=taught, resume=resume, dry_run=dry_run,
    )  # fmt: skip
