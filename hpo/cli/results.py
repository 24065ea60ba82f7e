"""The commands that look at a run: status, report."""

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


def report(run_dir: RunDir, as_json: AsJson = False, storage: Storage = None) -> None:
    """Writes leaderboard.csv and report.html of a run as it stands."""
    from hpo.delivery.results_copy import copy_results, results_url
    from hpo.reporting.report import write_report
    from hpo.reporting.rows import copied_rows

    run = open_run(run_dir, storage)
    write_report(run.folder, run.config, run.study)
    copy_results(run.folder, run.config)
    rows = {"report": str(run.folder.report), "leaderboard": str(run.folder.leaderboard)}
    if as_json:
        print_json(rows | {"copied_to": results_url(run.config)})
    else:
        print_rows(rows | copied_rows(run.config))
