"""write_report: writes leaderboard.csv, report.html and the model card of a run."""

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.reporting.leaderboard import leaderboard_rows, to_csv
from hpo.reporting.model_card import model_card
from hpo.reporting.page.render import render_page
from hpo.reporting.page.reported import Reported
from hpo.run_folder import RunFolder, replace_text
from hpo.selection.finalists import read_verdict, winner_of
from hpo.study.study import SearchStudy


def write_report(run: RunFolder, config: SearchConfig, study: SearchStudy) -> None:
    """Writes leaderboard.csv, report.html, and best/MODEL_CARD.md if a model is delivered."""
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    found = Reported(run, config, study, trials, winner_of(config, trials, verdict), verdict)
    rows = list(leaderboard_rows(trials, config, verdict))
    replace_text(run.leaderboard, to_csv(rows))
    replace_text(run.report, render_page(found, rows))
    files = ModelFiles(run.best)
    if files.is_delivered:
        chosen = verdict if found.other_delivered is None else None
        replace_text(files.card, model_card(files, config, trials, chosen))
