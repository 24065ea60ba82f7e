"""The command line: registers the commands, and turns errors into messages and exit codes.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong.
"""

import logging
import sys

import typer

from hpo.cli.benchmark import benchmark
from hpo.cli.dashboard import dashboard
from hpo.cli.data import data
from hpo.cli.distil import distil
from hpo.cli.extend import extend
from hpo.cli.init import init
from hpo.cli.jobs import jobs, submit
from hpo.cli.models import evaluate, export, retrain
from hpo.cli.output import escape_what_the_output_cannot_hold, fail
from hpo.cli.predict import predict
from hpo.cli.results import report, status
from hpo.cli.search import demo, resize, search
from hpo.cli.serve import serve
from hpo.cli.simulate import simulate
from hpo.cli.track import track
from hpo.cli.watch import watch
from hpo.errors import RunError, RunInterrupted, StoreError
from sgformer.errors import DiskFullError, ExportError, InputError, OutOfMemoryError

# Each command imports heavy packages (Ray, torch, Optuna) itself, so that --help stays fast.
app = typer.Typer(
    help="Searches hyperparameters of SG-Former image classifiers with Ray Tune and Optuna.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    demo, init, search, distil, extend, resize, submit, status, watch, simulate, report, dashboard,
    track, retrain, export, evaluate, predict, benchmark, serve,
):  # fmt: skip
    app.command()(command)
app.add_typer(jobs, name="jobs")
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command line; an error becomes one message and an exit code."""
    escape_what_the_output_cannot_hold()
    try:
        _check_completion()
        app()
    except InputError as error:
        fail(str(error), 2)
    except RunInterrupted as error:
        from hpo.execution.interruption import ignore_signals

        ignore_signals()
        fail(str(error), 1)
    except DiskFullError as error:
        fail(f"{error}; free some, then go on with --resume", 1)
    except StoreError as error:
        fail(f"{error}; go on with --resume", 1)
    except (RunError, ExportError, OutOfMemoryError) as error:
        fail(str(error), 1)
    except Exception:
        logging.getLogger(__name__).exception("this is a bug of the program, please report it")
        sys.exit(1)


def _check_completion() -> None:
    """Raises InputError if completion is asked for by a name that no shell can complete."""
    asked = {"--install-completion", "--show-completion"}.intersection(sys.argv[1:])
    if asked and sys.argv[0].endswith(".py"):
        raise InputError(
            f"{asked.pop()}: a shell completes the arguments of sgformer-hpo, and not those of "
            "python; give it to .venv/bin/sgformer-hpo"
        )
