"""Options that several commands share, with functions that open a run or a display."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.completion import complete_runs, complete_search_files
from hpo.cli.output import print_note, stderr_console
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.reporting.display import Display
    from hpo.run import Run
    from hpo.run_folder import RunFolder

RunDir = Annotated[
    Path,
    typer.Argument(help="A run's folder, such as runs/digits.", autocompletion=complete_runs),
]
SearchFile = Annotated[
    Path, typer.Argument(metavar="SEARCH.yaml", autocompletion=complete_search_files)
]


def _note_password(
    context: typer.Context, param: typer.CallbackParam, url: str | None
) -> str | None:
    """Says that others can read a password on the command line; passes the option's value on."""
    from hpo.config.storage_url import has_password

    source = context.get_parameter_source(str(param.name))
    is_typed = source is not None and source.name == "COMMANDLINE"
    if is_typed and url is not None and has_password(url):
        print_note(
            "the storage URL's password is in the process list, and in a cluster's records; "
            "pass the URL in HPO_STORAGE (--storage)"
        )
    return url


Storage = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_STORAGE",
        callback=_note_password,
        help="Optuna storage URL, or journal:PATH. Default: a file in the run folder.",
    ),
]


def _note_secret(
    context: typer.Context, param: typer.CallbackParam, url: str | None
) -> str | None:
    """Says that others can read a secret on the command line; passes the option's value on."""
    from hpo.config.tracking import masked_webhook, without_credentials

    source = context.get_parameter_source(str(param.name))
    is_typed = source is not None and source.name == "COMMANDLINE"
    mask = masked_webhook if param.name == "webhook" else without_credentials
    if is_typed and url and mask(url) != url:
        print_note(
            f"the whole URL of {mask(url)} is in the process list; pass it in {param.envvar} "
            f"({param.opts[0]})"
        )
    return url


TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files into the run folder.")
]
Mlflow = Annotated[
    str | None,
    typer.Option(
        "--mlflow", metavar="URI", envvar="HPO_MLFLOW", callback=_note_secret,
        help="Log to MLflow: http://HOST:PORT, sqlite:///FILE or a folder.",
    ),
]  # fmt: skip
Wandb = Annotated[bool, typer.Option("--wandb", help="Log to Weights & Biases.")]
OnEnd = Annotated[
    str | None, typer.Option(metavar="COMMAND", help="Run this when the search ends.")
]
Webhook = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="HPO_WEBHOOK", callback=_note_secret,
        help="POST a JSON there when the search ends.",
    ),
]  # fmt: skip
StudyName = Annotated[
    str | None, typer.Option(help="Default: the search file's study.name, or its own name.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replaces a setting; may be repeated."),
]
Features = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV, parquet or npz: features of the images, which models take too.",
    ),
]
Texts = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="CSV or parquet with a text for each image, which models take too."
    ),
]
RayAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT of a Ray cluster. Default: this machine.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check all and print what would be done; start nothing."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the study.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Use a cluster without token authentication.")
]


def _folder(path: Path) -> Path:
    if re.match(r"[A-Za-z][\w+.-]*:/", str(path)):
        raise InputError(f"--output-dir: takes a folder here, and no URL, got {path}")
    return path


OutputDir = Annotated[Path, typer.Option(help="Where run folders are made.", callback=_folder)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def open_run(run_dir: Path, storage: str | None) -> "Run":
    """Opens the run with the storage option's URL, else with the run's own storage.

    Raises:
        StudyError: The folder holds no run, its study is gone, or the storage cannot be used.
    """
    from hpo import run
    from hpo.run_folder import RunFolder

    return run.open_run(run_dir, storage_of(RunFolder(run_dir), storage))


def storage_of(run: "RunFolder", storage: str | None) -> str | None:
    """The storage option; None if it is HPO_STORAGE but the run's study is in its own folder."""
    is_from_environment = storage is not None and storage == os.environ.get("HPO_STORAGE")
    if not is_from_environment or not run.search_file.exists():
        return storage
    return storage if run.load_config().study.storage is not None else None


def with_tracking(
    config: "SearchConfig",
    *,
    tensorboard: bool = False,
    mlflow: str | None = None,
    wandb: bool = False,
    on_end: str | None = None,
    webhook: str | None = None,
) -> "SearchConfig":
    """The config with the options that are given in place of its section `tracking`.

    Raises:
        ConfigError: An option's value is wrong.
    """
    from hpo.config.tracking import TrackingConfig
    from sgformer.validation import validate

    given = {
        "tensorboard": tensorboard or None, "mlflow": mlflow, "wandb": wandb or None,
        "on_end": on_end, "webhook": webhook,
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    options = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
    tracking = validate(TrackingConfig, config.tracking.model_dump() | asked, options)
    return config.model_copy(update={"tracking": tracking.absolute()})


def require_writable(output_dir: Path) -> None:
    """Makes the folder; raises InputError if it cannot be made or written to."""
    from hpo.run_folder import RunFolder

    RunFolder(output_dir).make()


def make_display(config: "SearchConfig") -> "Display":
    """A live table on a terminal, plain lines elsewhere; both on standard error."""
    from hpo.reporting.display import LiveDisplay, PlainDisplay

    console = stderr_console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(config, console)
    return PlainDisplay(config, lambda line: print(line, file=sys.stderr, flush=True))


def with_features(
    override: list[str] | None, features: Path | None, texts: Path | None
) -> list[str]:
    """The overrides, after those that name a table of features or of texts.

    Raises:
        InputError: Both are given.
    """
    if features is not None and texts is not None:
        raise InputError(
            f"--features and --texts: give one, got {features} and {texts}; a table of both has a "
            "column text"
        )
    table = features or texts
    if table is None:
        return override or []
    own = [f"train.data.features={json.dumps(str(table))}"]  # as YAML
    own += ["train.data.text_encoder=hashing"] if texts else []
    return [*own, *(override or [])]
