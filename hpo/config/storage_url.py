"""Storage URLs: the files that they name, and the passwords that they hold."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

JOURNAL_PREFIX: Final = "journal:"
SQLITE_PREFIX: Final = re.compile(r"sqlite(?:\+\w+)?:///")
# '%' and '?' mean something to SQLAlchemy, '#' to study.warm_start, braces to Optuna.
SPECIAL_IN_PATHS: Final = re.compile(r"[%?#{}]")
SECRETS_IN_QUERIES: Final = re.compile(r"([?&]\w*(?:passw(?:or)?d|pwd)=)[^&]*", re.IGNORECASE)
# A URL's password ends at the first of these, or is read as another one.
NOT_ENCODED: Final = re.compile(r"[/@?#]|%(?![0-9A-Fa-f]{2})")
HOW_TO_ENCODE: Final = "in a password write @ / ? # % as %40 %2F %3F %23 %25"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, whatever characters its path has."""
    return f"sqlite:///{_quoted(path)}"


def file_of(url: str) -> Path | None:
    """The file that a SQLite or journal URL names; None: the storage is a server, or memory."""
    if url.startswith(JOURNAL_PREFIX):
        return Path(url.removeprefix(JOURNAL_PREFIX))
    prefix = SQLITE_PREFIX.match(url)
    if prefix is None or is_in_memory(url):
        return None
    return Path(unquote(url[prefix.end() :].partition("?")[0]))


def is_in_memory(url: str) -> bool:
    """Whether the URL names a SQLite database that no file keeps."""
    if not url.startswith("sqlite"):
        return False
    database = url.partition("://")[2].removeprefix("/")
    name, _, query = database.partition("?")
    return name in ("", ":memory:", "file::memory:") or "mode=memory" in query


def with_absolute_path(url: str) -> str:
    """The URL of a file-based storage, valid from any working folder; others as they are."""
    if url.startswith(JOURNAL_PREFIX):
        return f"{JOURNAL_PREFIX}{Path(url.removeprefix(JOURNAL_PREFIX)).absolute()}"
    prefix = SQLITE_PREFIX.match(url)
    if prefix is None or is_in_memory(url):
        return url
    path = url[prefix.end() :]
    return f"{prefix[0]}{path if path.startswith('/') else f'{_quoted(Path.cwd())}/{path}'}"


def has_password(url: str) -> bool:
    """Whether the URL holds a password, in whatever form."""
    return bool(_password(url)) or (
        not _is_file(url) and SECRETS_IN_QUERIES.search(url) is not None
    )


def is_encoded(url: str) -> bool:
    """Whether the password, if there is one, ends where a reader of the URL sees its end."""
    return NOT_ENCODED.search(_password(url)) is None


def without_password(url: str) -> str:
    """The URL fit for being shown and stored: without its password, or any part of it."""
    if url.startswith(JOURNAL_PREFIX):
        return url
    import sqlalchemy  # a third of a second, which --help has no use for

    scheme, separator, rest = url.partition("://")
    if not is_encoded(url):
        return f"{scheme}{separator}..."
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        info, at, host = rest.rpartition("@")
        url = f"{scheme}{separator}{info.partition(':')[0]}{at}{host}"
        return SECRETS_IN_QUERIES.sub(r"\1***", url)
    secrets = [name for name in parsed.query if SECRETS_IN_QUERIES.match(f"?{name}=")]
    return (
        parsed.difference_update_query(secrets)
        ._replace(password=None)
        .render_as_string(hide_password=False)
    )


def _password(url: str) -> str:
    """What follows the user's name; the last '@' ends it, as it may hold others."""
    if _is_file(url):
        return ""
    return url.partition("://")[2].rpartition("@")[0].partition(":")[2]


def _is_file(url: str) -> bool:
    return url.startswith((JOURNAL_PREFIX, "sqlite"))


def _quoted(path: Path) -> str:
    return SPECIAL_IN_PATHS.sub(lambda found: f"%{ord(found[0]):02X}", str(path))
