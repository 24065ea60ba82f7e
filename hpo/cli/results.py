"""The commands that look at a run: status, report, dashboard."""

from typing import Annotated

import typer

from hpo.cli.options import AsJson, RunDir, Storage, open_run
from hpo.cli.output import print_json, print_rows


def status(run_dir: RunDir, as_json: AsJson = False, storage: Storage = None) -> None:
    """How far a run is."""
    from hpo.reporting.status import read_status

    found = read_status(open_run(run_dir, storage))
    if as_json:
        print_json(found.as_json())
    else:
        print_rows(found.as_rows())


def report(run_dir: RunDir, storage: Storage = None) -> None:
    """Writes leaderboard.csv and report.html of a run as it stands."""
    from hpo.delivery.results_copy import copy_results
    from hpo.reporting.report import write_report
    from hpo.reporting.rows import copied_rows

    run = open_run(run_dir, storage)
    write_report(run.folder, run.config, run.study)
    copy_results(run.folder, run.config)
    rows = {"report": str(run.folder.report), "leaderboard": str(run.folder.leaderboard)}
    print_rows(rows | copied_rows(run.config))


def dashboard(
    run_dir: RunDir,
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    storage: Storage = None,
) -> None:
    """Serves optuna-dashboard at the run's study, on this machine only, until Ctrl-C."""
    from hpo.reporting.dashboard import make_dashboard

    run = open_run(run_dir, storage)
    server, address = make_dashboard(run.study, host, port)
    print(f"study {run.config.study.name} at {address} (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
