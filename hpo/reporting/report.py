"""Writes leaderboard.csv, report.html and the model card of a run, and comparisons of runs."""

from collections.abc import Sequence
from pathlib import Path

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.reporting.leaderboard import leaderboard_rows, to_csv
from hpo.reporting.model_card import model_card
from hpo.reporting.page.comparison import render_comparison
from hpo.reporting.page.render import render_page
from hpo.reporting.page.reported import Reported
from hpo.run import Run
from hpo.run_folder import RunFolder, replace_text
from hpo.selection.finalists import read_verdict, winner_of
from hpo.study.study import SearchStudy
from sgformer.errors import InputError


def write_report(run: RunFolder, config: SearchConfig, study: SearchStudy) -> None:
    """Writes leaderboard.csv, report.html, and best/MODEL_CARD.md if a model is delivered.

    Pictures of the images are removed if `report.images` is off.
    """
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    if not config.report.images:
        for folder in (run.best, *run.front.glob("*")):
            ModelFiles(folder).pictures.unlink(missing_ok=True)
    found = Reported(run, config, study, trials, winner_of(config, trials, verdict), verdict)
    rows = list(leaderboard_rows(trials, config, verdict))
    replace_text(run.leaderboard, to_csv(rows))
    replace_text(run.report, render_page(found, rows))
    files = ModelFiles(run.best)
    if files.is_delivered:
        chosen = verdict if found.other_delivered is None else None
        replace_text(files.card, model_card(files, config, trials, chosen))


def write_comparison(runs: Sequence[Run], path: Path) -> None:
    """Writes a page that shows runs side by side; the runs' folders stay as they are.

    Args:
        runs: At least two runs, each given once.
        path: The page's file.

    Raises:
        InputError: A run is given twice, or the page cannot be written.
    """
    names = [run.folder.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder.path) for run in runs]
    places = [run.folder.path.resolve() for run in runs]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"a run is compared with others, and {twice} is given twice")
    page = render_comparison(dict(zip(names, map(Reported.of, runs), strict=True)))
    try:
        replace_text(path, page)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror} (--output)") from None
