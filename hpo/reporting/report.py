"""write_report: writes leaderboard.csv, report.html and the model card of a run."""

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.reporting.leaderboard import leaderboard_rows, to_csv
from hpo.reporting.model_card import model_card
from hpo.reporting.page import other_delivered, render_page
from hpo.run_folder import RunFolder, replace_text
from hpo.selection.finalists import read_verdict, winner_of
from hpo.study.study import SearchStudy


def write_report(run: RunFolder, config: SearchConfig, study: SearchStudy) -> None:
    """Writes leaderboard.csv, report.html, and best/MODEL_CARD.md if a model is delivered.

    Pictures of the images are removed if `report.images` is off.
    """
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    winner = winner_of(config, trials, verdict)
    if not config.report.images:
        for folder in (run.best, *run.front.glob("*")):
            ModelFiles(folder).pictures.unlink(missing_ok=True)
    rows = list(leaderboard_rows(trials, config, verdict))
    replace_text(run.leaderboard, to_csv(rows))
    replace_text(run.report, render_page(run, config, study, rows, winner, verdict))
    files = ModelFiles(run.best)
    if files.is_delivered:
        chosen = verdict if other_delivered(study, winner) is None else None
        replace_text(files.card, model_card(files, config, trials, chosen))
