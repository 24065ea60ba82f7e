"""The commands that look at a run: status, report."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hpo.cli.options import AsJson, RunDir, Storage, open_run
from hpo.cli.output import print_json, print_rows
from sgformer.errors import InputError

COMPARISON: Final = "report-comparison.html"
RunDirs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN_DIR", help="A run's folder, such as runs/digits; several are compared."
    ),
]


def status(run_dir: RunDir, as_json: AsJson = False, storage: Storage = None) -> None:
    """How far a run is."""
    from hpo.reporting.status import read_status

    found = read_status(open_run(run_dir, storage))
    if as_json:
        print_json(found.as_json())
    else:
        print_rows(found.as_rows())


def report(
    run_dirs: RunDirs,
    output: Annotated[
        Path | None,
        typer.Option(help=f"The page of several runs. Default: {COMPARISON} in this folder."),
    ] = None,
    as_json: AsJson = False,
    storage: Storage = None,
) -> None:
    """Writes leaderboard.csv and report.html of a run as it stands, or compares several runs."""
    if len(run_dirs) > 1:
        _compare(run_dirs, output or Path(COMPARISON), storage, as_json=as_json)
        return
    if output is not None:
        raise InputError(
            f"--output: names the page that compares several runs, got {output} and one run; its "
            "report goes to its own folder"
        )
    _report(run_dirs[0], storage, as_json=as_json)


def _compare(run_dirs: list[Path], output: Path, storage: str | None, *, as_json: bool) -> None:
    from hpo.reporting.report import write_comparison

    write_comparison([open_run(run_dir, storage) for run_dir in run_dirs], output)
    rows = {"comparison": str(output)}
    if as_json:
        print_json({"report": None, "leaderboard": None, **rows, "copied_to": None})
    else:
        print_rows(rows)


def _report(run_dir: Path, storage: str | None, *, as_json: bool) -> None:
    from hpo.delivery.results_copy import copy_results, results_url
    from hpo.reporting.report import write_report
    from hpo.reporting.rows import copied_rows

    run = open_run(run_dir, storage)
    write_report(run.folder, run.config, run.study)
    copy_results(run.folder, run.config)
    rows = {"report": str(run.folder.report), "leaderboard": str(run.folder.leaderboard)}
    if as_json:
        print_json({**rows, "comparison": None, "copied_to": results_url(run.config)})
    else:
        print_rows(rows | copied_rows(run.config))
