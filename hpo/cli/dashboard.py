"""The command dashboard: serves optuna-dashboard for a run, or for a database of studies."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.completion import complete_runs
from hpo.cli.options import Storage, open_run
from sgformer.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from hpo.run_folder import RunFolder


def dashboard(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            help="A run's folder. Default: all studies of --storage.",
            autocompletion=complete_runs,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="An address beyond loopback needs a token of clients.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    allow_edit: Annotated[
        bool, typer.Option("--allow-edit", help="Let pages change and delete studies.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(help="The token, mode 600. Default: HPO_DASHBOARD_TOKEN, or a new one."),
    ] = None,
    storage: Storage = None,
) -> None:
    """Serves optuna-dashboard, read-only, until Ctrl-C; it follows a search that runs."""
    from hpo.access import DASHBOARD_TOKEN, listen, take_token
    from hpo.dashboard.guard import Access
    from hpo.dashboard.server import Dashboard

    studies, name, page, folders = _find(run_dir, storage)
    token, is_new = take_token(token_file, host, DASHBOARD_TOKEN)
    access = Access(host, token, allow_edit)
    with listen(host, port) as opened:
        served = Dashboard(studies, opened, access, page, folders)
        if is_new:
            # To the terminal once, and nowhere else.
            print(f"token: {token}", file=sys.stderr, flush=True)
        if served.link is not None:
            print(f"opens once, for one browser: {served.link}", file=sys.stderr, flush=True)
        print(f"{name} at {served.url} (Ctrl-C ends it)", flush=True)
        served.serve()


def _find(
    run_dir: Path | None, storage: str | None
) -> tuple["BaseStorage", str, str, dict[int, "RunFolder"]]:
    """The storage, what is shown of it, the path of its page, and run folders by study id."""
    from hpo.config.storage_url import without_password
    from hpo.dashboard.server import ALL_STUDIES, page_of
    from hpo.errors import StudyError
    from hpo.study.storage import open_cached_storage, storage_exists

    if run_dir is not None:
        run = open_run(run_dir, storage)
        study = run.study
        folders = {study.id: run.folder}
        return study.storage, f"study {study.name}", page_of(study.id), folders
    if storage is None:
        raise InputError("nothing to show: name a run's folder, or a database (--storage)")
    if not storage_exists(storage):
        raise StudyError(f"no file {without_password(storage)} (--storage)")
    name = f"studies of {without_password(storage)}"
    return open_cached_storage(storage), name, ALL_STUDIES, {}
