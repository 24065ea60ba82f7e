"""A folder at a URL: of an object store, or of any other file system of pyarrow and fsspec."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Of pyarrow; in these a folder is nothing but the beginning of names, and a file is there once it
# is whole.
OBJECT_STORES: Final = ("s3", "gcs", "abfs")


class UrlError(Exception):
    """A file system's own error, as text on one line."""


@dataclass(frozen=True)
class UrlFolder:
    """A folder of one of pyarrow's file systems; errors are of the file system's own kinds."""

    files: Any
    path: str

    def write(self, name: str, source: Path) -> None:
        """Copies a file to this folder; a program that dies while it does leaves no such file."""
        with source.open("rb") as read, self._new(name) as written:
            shutil.copyfileobj(read, written, 2**20)

    def write_text(self, name: str, text: str) -> None:
        """Replaces a small file: others read the whole old text, or the whole new one."""
        with self._new(name) as written:
            written.write(text.encode())

    def write_mark(self) -> None:
        """Writes a small file, and removes it."""
        name = f".mark-{uuid.uuid4().hex}"
        self.write_text(name, "mark")
        self.delete(name)

    def read(self, name: str, target: Path) -> None:
        """Copies a file from this folder."""
        with (
            self.files.open_input_stream(f"{self.path}/{name}") as read,
            target.open("wb") as written,
        ):
            shutil.copyfileobj(read, written, 2**20)

    def read_text(self, name: str) -> str | None:
        """The text of a small file; None: there is no such file."""
        try:
            with self.files.open_input_stream(f"{self.path}/{name}") as read:
                return str(read.read(), encoding="utf-8")
        except FileNotFoundError:
            return None

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of all files in a folder, which need not exist, by name from here on."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self.path}/{folder}", recursive=True, allow_not_found=True)
        return {
            found.path.removeprefix(self.path).lstrip("/"): found.size
            for found in self.files.get_file_info(selector)
            if found.type == FileType.File
        }

    def delete(self, name: str) -> None:
        self.files.delete_file(f"{self.path}/{name}")

    def is_folder(self, folder: Path) -> bool:
        return self.files.type_name == "local" and Path(self.path).resolve() == folder.resolve()

    @contextlib.contextmanager
    def _new(self, name: str) -> Iterator[Any]:
        """A stream to a file that is put in its place once it is whole."""
        path = f"{self.path}/{name}"
        if self.files.type_name in OBJECT_STORES:
            with self.files.open_output_stream(path) as written:
                yield written
            return
        folder, _, last = path.rpartition("/")
        self.files.create_dir(folder, recursive=True)
        temporary = f"{folder}/.{last}-{uuid.uuid4().hex}"
        with self.files.open_output_stream(temporary) as written:
            yield written
        self.files.move(temporary, path)


def open_url(url: str) -> UrlFolder:
    """The folder of a URL, opened by pyarrow if it knows the kind, as S3, else by fsspec."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return UrlFolder(*FileSystem.from_uri(url))
    except ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
    from fsspec.core import url_to_fs

    files, path = url_to_fs(url)
    return UrlFolder(PyFileSystem(FSSpecHandler(files)), path)


@contextlib.contextmanager
def url_errors() -> Iterator[None]:
    """Turns any error of a file system into UrlError; each library has its own kinds."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        raise UrlError(one_line(error)) from None


def one_line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
