"""Copies a run's results to a URL: an object store, or any other file system of fsspec."""

from hpo.config.results_url import url_below
from hpo.config.schema import SearchConfig
from hpo.errors import RunError, StudyError
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.url_folder import UrlError, open_url, url_errors


def results_url(config: SearchConfig) -> str | None:
    """The URL of a run's results, in a folder of the study's name; None: they are not copied."""
    url = config.study.deliver_to
    return None if url is None else url_below(url, config.study.name)


def check_results_url(run: RunFolder, config: SearchConfig) -> None:
    """Writes a small file to the URL of the run's results, if it has one, and removes it.

    Raises:
        StudyError: The URL cannot be written to, or is the run's own folder.
    """
    url = results_url(config)
    if url is None:
        return
    where = "(study.deliver_to, --output-dir)"
    try:
        with url_errors():
            target = open_url(url)
            is_own = target.is_folder(run.path)
            if not is_own:
                target.write_mark()
    except UrlError as error:
        raise StudyError(f"cannot write to {url}: {error} {where}") from None
    if is_own:
        raise StudyError(f"{url} is the folder in which the run works; give another one {where}")


def copy_results(run: RunFolder, config: SearchConfig) -> str | None:
    """Copies best/, front/, leaderboard.csv, report.html and search.yaml of a run to its URL.

    Files of an earlier model that this one lacks are removed there. Exemplars, which are images of
    the training, stay in the run's folder.

    Returns:
        The URL; None: the run has none.

    Raises:
        RunError: The URL cannot be written to; what is in the run's folder stays as it is.
    """
    url = results_url(config)
    if url is None:
        return None
    folders = (run.best, run.front)
    exemplars = ModelFiles(run.best).exemplars
    files = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and exemplars not in path.parents
    ]
    others = (run.leaderboard, run.report, run.search_file)
    local = {
        str(path.relative_to(run.path)): path
        for path in [*files, *(path for path in others if path.is_file())]
    }
    try:
        with url_errors():
            target = open_url(url)
            for name, path in local.items():
                target.write(name, path)
            for folder in folders:
                for name in target.sizes(folder.name).keys() - local.keys():
                    target.delete(name)
    except UrlError as error:
        raise RunError(
            f"the results are in {run.path}, but cannot be copied to {url}: {error}; "
            f"`report {run.path}` copies them again"
        ) from None
    return url
