"""Copies a run's results to a URL: an object store, or any other file system of fsspec."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpo.config.schema import SearchConfig
from hpo.errors import RunError, StudyError
from hpo.run_folder import RunFolder

# Of pyarrow; in these a folder is nothing but the beginning of names.
OBJECT_STORES: Final = ("s3", "gcs", "abfs")


class _CopyError(Exception):
    """A file system's own error, as text on one line."""


@dataclass(frozen=True)
class _Target:
    """A folder of one of pyarrow's file systems."""

    files: Any
    path: str

    def write(self, name: str, source: Path) -> None:
        path = f"{self.path}/{name}"
        self._make(path.rpartition("/")[0])
        with source.open("rb") as read, self.files.open_output_stream(path) as written:
            shutil.copyfileobj(read, written, 2**20)

    def write_mark(self) -> None:
        """Writes a small file, and removes it."""
        path = f"{self.path}/.mark-{uuid.uuid4().hex}"
        self._make(self.path)
        with self.files.open_output_stream(path) as written:
            written.write(b"mark")
        self.files.delete_file(path)

    def names(self, folder: str) -> Iterator[str]:
        """The names of all files in a folder, which need not exist, from the target on."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self.path}/{folder}", recursive=True, allow_not_found=True)
        for found in self.files.get_file_info(selector):
            if found.type == FileType.File:
                yield found.path.removeprefix(self.path).lstrip("/")

    def delete(self, name: str) -> None:
        self.files.delete_file(f"{self.path}/{name}")

    def is_folder(self, folder: Path) -> bool:
        return self.files.type_name == "local" and Path(self.path).resolve() == folder.resolve()

    def _make(self, folder: str) -> None:
        if self.files.type_name not in OBJECT_STORES:
            self.files.create_dir(folder, recursive=True)


def results_url(config: SearchConfig) -> str | None:
    """The URL of a run's results, in a folder of the study's name; None: they are not copied."""
    if config.study.deliver_to is None:
        return None
    place, mark, options = config.study.deliver_to.partition("?")
    return f"{place.rstrip('/')}/{config.study.name}{mark}{options}"


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
        with _own_errors():
            target = _open(url)
            is_own = target.is_folder(run.path)
            if not is_own:
                target.write_mark()
    except _CopyError as error:
        raise StudyError(f"cannot write to {url}: {error} {where}") from None
    if is_own:
        raise StudyError(f"{url} is the folder in which the run works; give another one {where}")


def copy_results(run: RunFolder, config: SearchConfig) -> str | None:
    """Copies best/, front/, leaderboard.csv, report.html and search.yaml of a run to its URL.

    Files of an earlier model that this one lacks are removed there.

    Returns:
        The URL; None: the run has none.

    Raises:
        RunError: The URL cannot be written to; what is in the run's folder stays as it is.
    """
    url = results_url(config)
    if url is None:
        return None
    folders = (run.best, run.front)
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    others = (run.leaderboard, run.report, run.search_file)
    local = {
        str(path.relative_to(run.path)): path
        for path in [*files, *(path for path in others if path.is_file())]
    }
    try:
        with _own_errors():
            target = _open(url)
            for name, path in local.items():
                target.write(name, path)
            for folder in folders:
                for name in set(target.names(folder.name)) - local.keys():
                    target.delete(name)
    except _CopyError as error:
        raise RunError(
            f"the results are in {run.path}, but cannot be copied to {url}: {error}; "
            f"`report {run.path}` copies them again"
        ) from None
    return url


def _open(url: str) -> _Target:
    """The folder of a URL, opened by pyarrow if it knows the kind, as S3, else by fsspec."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return _Target(*FileSystem.from_uri(url))
    except ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    return _Target(PyFileSystem(FSSpecHandler(files)), path)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Turns any error of a file system into one of ours; each library has its own kinds."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        text = " ".join(str(error).split()) or type(error).__name__
        raise _CopyError(text) from None
