"""The command watch: a search that another process runs, as its own terminal shows it."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hpo.cli.completion import complete_runs
from hpo.cli.options import AsJson, Insecure, Storage, open_run
from hpo.cli.output import print_json, print_note
from hpo.program import command_line
from sgformer.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from rich.live import Live

    from hpo.execution.jobs import JobServer
    from hpo.reporting.snapshot import Snapshot
    from hpo.reporting.watched import WatchedStudy

SECONDS_BETWEEN_LOOKS: Final = 1.0
SECONDS_TO_BEGIN: Final = 60.0  # from a job's start until its study must be seen
MOST_NAMED: Final = 8


def watch(
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_OR_JOB",
            help="A run's folder, or a job of --ray-address. Default: the search of --storage.",
            autocompletion=complete_runs,
        ),
    ] = None,
    storage: Storage = None,
    study_name: Annotated[
        str | None, typer.Option(help="Default: the only study, or the only one searched now.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="http://HEAD:8265, for a job."),
    ] = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Shows a search that runs elsewhere until it ends; Ctrl-C leaves it running.

    Without a terminal it prints a line, or with --json a document, on each change.
    """
    with contextlib.suppress(KeyboardInterrupt):
        if place is not None and ray_address is not None and not Path(place).is_dir():
            _watch_job(place, ray_address, storage, insecure=insecure, as_json=as_json)
        else:
            _follow(_find(place, storage, study_name), as_json=as_json)


def _find(place: str | None, storage: str | None, study_name: str | None) -> "WatchedStudy":
    if place is None:
        return _find_in_storage(storage, study_name)
    _await_start(Path(place))
    return _watched_run(Path(place), storage)


def _watched_run(path: Path, storage: str | None) -> "WatchedStudy":
    from hpo.reporting.watched import WatchedStudy

    run = open_run(path, storage)
    return WatchedStudy(run.study, run.config, run.folder)


def _await_start(path: Path) -> None:
    """Waits while a search that has just begun has not made its study yet."""
    from hpo.run_folder import RunFolder

    folder, is_told = RunFolder(path), False
    while not folder.search_file.is_file() and folder.has_owner:
        if not is_told:
            print_note(f"the search over {path} is starting")
        is_told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _find_in_storage(url: str | None, name: str | None) -> "WatchedStudy":
    from hpo.config.storage_url import without_password
    from hpo.errors import StudyError
    from hpo.reporting.watched import WatchedStudy
    from hpo.study.storage import open_storage, storage_exists
    from hpo.study.study import SearchStudy

    if url is None:
        raise InputError("nothing to watch: name a run's folder, or a database (--storage)")
    if not storage_exists(url):
        raise StudyError(f"no file {without_password(url)} (--storage)")
    name = name or _only_search(open_storage(url), without_password(url))
    study, config = SearchStudy.of_search(url, name)
    return WatchedStudy(study, config, None)


def _only_search(storage: "BaseStorage", url: str) -> str:
    """The name of the only study in a storage, or of the only one on which a search works."""
    from hpo.errors import StudyError
    from hpo.study.driver import is_driven

    studies = storage.get_all_studies()
    driven = [s for s in studies if is_driven(s.user_attrs.get("driver"))]
    found = studies if len(studies) == 1 else driven
    if len(found) == 1:
        return str(found[0].study_name)
    if not studies:
        raise StudyError(f"no studies in {url} (--storage)")
    names = [study.study_name for study in found or studies]
    more = f" and {len(names) - MOST_NAMED} more" * (len(names) > MOST_NAMED)
    what = "searches run on" if driven else "no search runs on any of"
    raise InputError(
        f"{what} {', '.join(map(repr, names[:MOST_NAMED]))}{more}; name one (--study-name)"
    )


def _follow(
    watched: "WatchedStudy",
    *,
    as_json: bool,
    goes_on: Callable[[], bool] = lambda: False,
) -> None:
    """Shows a search until no process works on it.

    Args:
        watched: The search.
        as_json: Whether JSON is printed.
        goes_on: Returns whether the search is still to go on where no process works on it now.
    """
    last: object = None
    with _terminal(as_json=as_json) as live:
        while True:
            snapshot = watched.look()
            if live is None:
                last = _print_news(snapshot, last, as_json=as_json)
            else:
                _draw(live, snapshot)
            if watched.is_over and not goes_on():
                break
            time.sleep(watched.seconds_to_wait)
    if not as_json:
        print(_last_words(watched))


def _terminal(*, as_json: bool) -> "contextlib.AbstractContextManager[Live | None]":
    """The terminal on which the search is drawn; None: there is none, or JSON is printed."""
    from rich.console import Console
    from rich.live import Live

    console = Console(markup=False, highlight=False)
    if as_json or not console.is_terminal or console.is_dumb_terminal:
        return contextlib.nullcontext()
    return Live(console=console, auto_refresh=False)


def _draw(live: "Live", snapshot: "Snapshot") -> None:
    from hpo.reporting.view import SearchView

    live.update(SearchView(snapshot), refresh=True)


def _print_news(snapshot: "Snapshot", last: object, *, as_json: bool) -> object:
    """Prints a snapshot if more than times has changed; returns it without its times."""
    from hpo.reporting.watched import as_json as values_of
    from hpo.reporting.watched import line_of

    if as_json:
        values = values_of(snapshot)
        now: object = {
            name: value for name, value in values.items() if not name.startswith("seconds")
        }
        if now != last:
            print_json(values, indent=None)
    else:
        now, times = line_of(snapshot)
        if now != last:
            print(f"{now}, {times}")
    sys.stdout.flush()
    return now


def _last_words(watched: "WatchedStudy") -> str:
    from hpo.reporting.watched import NOT_RUNNING

    folder = watched.folder
    if folder is None:
        return NOT_RUNNING
    if folder.is_complete:
        return f"the search is complete: {folder.report}"
    where = ("--output-dir", folder.path.parent)
    resume = command_line("search", folder.search_file, *where, "--resume")
    return f"{NOT_RUNNING}; to go on: {resume}"


def _watch_job(
    name: str, address: str, storage: str | None, *, insecure: bool, as_json: bool
) -> None:
    """Shows a job's search, from its study if that is seen from here; else its log."""
    from hpo.cli.jobs import follow_job
    from hpo.execution.jobs import JobServer

    server = JobServer(address, insecure=insecure)
    watched = _study_of_job(server, name, storage)
    if watched is not None:
        _follow(watched, as_json=as_json, goes_on=lambda: not server.job(name).is_over)
        return
    if as_json:
        raise InputError(
            f"the study of job {name} cannot be read from here: give its database (--storage), or "
            "`jobs status --json`"
        )
    follow_job(server, name)


def _study_of_job(server: "JobServer", name: str, storage: str | None) -> "WatchedStudy | None":
    """The study of a job, once the job has made it; None: it is not seen from here."""
    begun_at: float | None = None
    while True:
        job = server.job(name)
        if job.run is None:
            raise InputError(f"job {name} is no search of this program; see `jobs list`")
        path = Path(job.run)
        watched = _opened(path, storage)
        if watched is not None or job.is_over or not (storage or path.parent.is_dir()):
            return watched
        if job.status == "running":
            begun_at = begun_at or time.monotonic()
            if time.monotonic() > begun_at + SECONDS_TO_BEGIN:
                return None
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _opened(path: Path, storage: str | None) -> "WatchedStudy | None":
    """The study of a run's folder on the nodes, or of its name in a database; None: not yet."""
    from hpo.errors import StudyError

    with contextlib.suppress(StudyError):
        if path.is_dir():
            return _watched_run(path, storage)
        if storage is not None:
            return _find_in_storage(storage, path.name)
    return None
