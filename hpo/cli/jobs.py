"""The commands for a cluster's head, from any machine: submit, and jobs list|status|logs|stop."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    AsJson,
    Features,
    Insecure,
    Overrides,
    Resume,
    SearchFile,
    StudyName,
    Texts,
    with_features,
)
from hpo.cli.output import print_json, print_note, print_rows
from hpo.program import command_line

if TYPE_CHECKING:
    from hpo.execution.jobs import Job, JobServer
    from hpo.execution.submission import Submission
    from hpo.reporting.rows import Rows

Address = Annotated[
    str,
    typer.Option(
        "--ray-address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="http://HEAD:8265, the dashboard of a Ray cluster.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="As `submit` and `jobs list` print it.")]

jobs = typer.Typer(help="Searches that were sent to a Ray cluster.", no_args_is_help=True)


def submit(
    search_file: SearchFile,
    ray_address: Address,
    output_dir: Annotated[
        Path, typer.Option(help="Where run folders are made: a folder that all nodes share.")
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Images, as for `search`; a path on the nodes.")
    ] = None,
    study_name: StudyName = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage URL. Default: HPO_STORAGE on the head, or study.db."),
    ] = None,
    features: Features = None,
    texts: Texts = None,
    override: Overrides = None,
    resume: Resume = False,
    image_has_it: Annotated[
        bool,
        typer.Option("--image-has-it", help="The nodes have this package: send no sources."),
    ] = False,
    insecure: Insecure = False,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Print the job's id, and not its log.")
    ] = False,
) -> None:
    """Sends a search to a Ray cluster, and follows its log; Ctrl-C leaves the search running.

    Exit code 0 if the search succeeds, 1 if it fails or is stopped.
    """
    submission = _checked_submission(
        search_file, output_dir, data_dir, study_name, storage,
        with_features(override, features, texts),
        resume=resume, insecure=insecure, image_has_it=image_has_it,
    )  # fmt: skip
    server = _server(ray_address, insecure=insecure)
    job = server.submit(submission)
    print_rows({"job": job, "run folder": str(submission.run_dir), **_commands(server, job)})
    sys.stdout.flush()
    if not image_has_it:
        print_note(
            "each node installs the requirements before it takes part, which takes minutes; an "
            "image that has them needs none (--image-has-it)"
        )
    if not no_follow:
        follow_job(server, job)


@jobs.command("list")
def list_(ray_address: Address, as_json: AsJson = False, insecure: Insecure = False) -> None:
    """The searches on a cluster, the latest first."""
    server = _server(ray_address, insecure=insecure)
    found = server.searches()
    if as_json:
        print_json([_as_json(job) for job in found])
    elif found:
        print_rows({job.id: f"{_state_text(job)}; {job.run}" for job in found})
    else:
        print(f"no searches at {server.address}")


@jobs.command()
def status(
    job: JobId, ray_address: Address, as_json: AsJson = False, insecure: Insecure = False
) -> None:
    """What became of a job."""
    server = _server(ray_address, insecure=insecure)
    found = server.job(job)
    if as_json:
        print_json(_as_json(found))
    else:
        print_rows(_rows(found) | _commands(server, job))


@jobs.command()
def logs(
    job: JobId,
    ray_address: Address,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
    insecure: Insecure = False,
) -> None:
    """Prints a job's log; with --follow, as `submit` does, with its exit codes."""
    server = _server(ray_address, insecure=insecure)
    if follow:
        follow_job(server, job)
    else:
        sys.stdout.write(server.log(job))


@jobs.command()
def stop(job: JobId, ray_address: Address, insecure: Insecure = False) -> None:
    """Stops a job, once what is under way is saved; `submit --resume` goes on with it."""
    server = _server(ray_address, insecure=insecure)
    if server.job(job).is_over:
        print_note(f"job {job} had ended before")
    else:
        print_note("the job saves what is under way")
    print_rows(_rows(server.stop(job)))


def _checked_submission(
    search_file: Path,
    output_dir: Path,
    data_dir: Path | None,
    study_name: str | None,
    storage: str | None,
    overrides: list[str],
    *,
    resume: bool,
    insecure: bool,
    image_has_it: bool,
) -> "Submission":
    """What is to be sent, of which all is checked that needs neither the images nor the cluster.

    Raises:
        InputError: A setting or an option is wrong.
    """
    from hpo.config.loading import check_paths_absolute, load_search_config
    from hpo.execution.pins import installed_pins
    from hpo.execution.submission import Submission
    from sgformer.errors import ConfigError, DataError

    config, notes = load_search_config(search_file, overrides, data_dir, study_name)
    check_paths_absolute(search_file, overrides, data_dir)
    if not output_dir.is_absolute():
        raise ConfigError(
            f"paths on a cluster's nodes must be absolute, got {output_dir} (--output-dir)"
        )
    if config.train.data.data_dir is None:
        raise DataError("no images given: pass --data-dir, or set train.data.data_dir")
    if config.tracking.has_secret:
        raise ConfigError(
            "tracking: holds a URL of which a part is secret, and Ray would keep and show it: "
            "leave it out, and start the cluster's head with HPO_WEBHOOK or HPO_MLFLOW "
            f"({search_file}, --set)"
        )
    if storage is not None:
        _check_storage(storage)
    elif "HPO_STORAGE" in os.environ:
        print_note(
            "HPO_STORAGE is not sent, as it may hold a password: the head's own is used, or "
            "--storage"
        )
    for note in notes:
        print_note(note)
    given = {"--data-dir": data_dir, "--storage": storage}
    options = [part for name, value in given.items() if value for part in (name, str(value))]
    options += [part for override in overrides for part in ("--set", override)]
    options += ["--resume"] * resume + ["--insecure"] * insecure
    pins = None if image_has_it else installed_pins()
    return Submission(search_file, config.study.name, output_dir, tuple(options), pins)


def _check_storage(url: str) -> None:
    """Raises StudyError for a URL that is wrong, or that would tell Ray a password."""
    from hpo.config.storage_url import file_of, has_password
    from hpo.errors import StudyError
    from hpo.study.storage import check_storage_url

    if has_password(url):
        raise StudyError(
            "the storage URL holds a password, which Ray would keep and show: leave it out, and "
            "start the cluster's nodes with the whole URL in HPO_STORAGE, or with PGPASSWORD or "
            "~/.pgpass (--storage)"
        )
    check_storage_url(url)
    file = file_of(url)
    if file is not None and not file.is_absolute():
        raise StudyError(f"paths on a cluster's nodes must be absolute, got {url} (--storage)")


def _server(address: str, *, insecure: bool = False) -> "JobServer":
    from hpo.execution.jobs import JobServer

    return JobServer(address, insecure=insecure)


def follow_job(server: "JobServer", job: str) -> None:
    """Prints a job's log until it ends, or until Ctrl-C.

    Raises:
        RunError: The job has failed, or was stopped.
    """
    from hpo.errors import RunError

    try:
        ended = server.follow(job, _write)
    except KeyboardInterrupt:
        command = _commands(server, job)["follow"]
        print(f"\njob {job} goes on; to follow it again: {command}", flush=True)
        return
    if ended.status == "failed":
        raise RunError(f"job {job} failed: {ended.last_error}")
    if ended.status == "stopped":
        raise RunError(f"job {job} was stopped; `submit --resume` goes on with it")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _commands(server: "JobServer", job: str) -> "Rows":
    """How a job is followed and stopped."""
    where = ("--ray-address", server.address)
    return {
        "follow": command_line("jobs", "logs", "--follow", job, *where),
        "stop": command_line("jobs", "stop", job, *where),
    }


def _rows(job: "Job") -> "Rows":
    rows = {"job": job.id, "status": _state_text(job)}
    if job.run is not None:
        rows["run folder"] = job.run
    if job.status == "pending":
        rows["waiting"] = job.message
    if job.status == "failed":
        rows["error"] = job.last_error
    if job.status in ("failed", "stopped"):
        rows["to go on"] = "`submit` as before, with --resume"
    return rows


def _state_text(job: "Job") -> str:
    when = job.ended or job.begun
    return f"{job.status} since {when:%Y-%m-%d %H:%M:%S}" if when else job.status


def _as_json(job: "Job") -> dict[str, Any]:
    values = asdict(job) | {"error": job.last_error if job.status == "failed" else None}
    del values["message"]
    for name in ("begun", "ended"):
        values[name] = values[name] and values[name].isoformat(timespec="seconds")
    return values
