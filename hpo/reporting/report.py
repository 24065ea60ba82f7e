"""write_report: writes leaderboard.csv and report.html of a run."""

from hpo.config.schema import SearchConfig
from hpo.reporting.leaderboard import leaderboard_rows, to_csv
from hpo.reporting.page import render_page
from hpo.run_folder import RunFolder, replace_text
from hpo.selection.finalists import read_verdict, winner_of
from hpo.study.study import SearchStudy


def write_report(run: RunFolder, config: SearchConfig, study: SearchStudy) -> None:
    """Writes leaderboard.csv and report.html from the study, and from best/ if it exists."""
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    winner = winner_of(config, trials, verdict)
    rows = list(leaderboard_rows(trials, config, verdict))
    replace_text(run.leaderboard, to_csv(rows))
    replace_text(run.report, render_page(run, config, study, rows, winner, verdict))
