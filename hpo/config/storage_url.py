"""Storage URLs: which file a URL names, and which password it holds."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

JOURNAL_PREFIX: Final = "journal:"
SQLITE_PREFIX: Final = re.compile(r"sqlite(?:\+\w+)?:///")
# Characters with a meaning in URLs: '%' and '?' for SQLAlchemy, '#' for study.warm_start,
# braces for Optuna.
SPECIAL_IN_PATHS: Final = re.compile(r"[%?#{}]")
SECRETS_IN_QUERIES: Final = re.compile(r"([?&]\w*(?:passw(?:or)?d|pwd)=)[^&]*", re.IGNORECASE)
# Characters that end a password, or change it, unless they are percent-encoded.
NOT_ENCODED: Final = re.compile(r"[/@?#]|%(?![0-9A-Fa-f]{2})")
HOW_TO_ENCODE: Final = "in a password write @ / ? # % as %40 %2F %3F %23 %25"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file; special characters of its path are percent-encoded."""
    return f"sqlite:///{_quoted(path)}"


def file_of(url: str) -> Path | None:
    """The file of a SQLite or journal URL; None for a database server or an in-memory database."""
    if url.startswith(JOURNAL_PREFIX):
        return Path(url.removeprefix(JOURNAL_PREFIX))
    prefix = SQLITE_PREFIX.match(url)
    if prefix is None or is_in_memory(url):
        return None
    return Path(unquote(url[prefix.end() :].partition("?")[0]))


def is_in_memory(url: str) -> bool:
    """Whether the URL names a SQLite database that exists only in memory."""
    if not url.startswith("sqlite"):
        return False
    database = url.partition("://")[2].removeprefix("/")
    name, _, query = database.partition("?")
    return name in ("", ":memory:", "file::memory:") or "mode=memory" in query


def with_absolute_path(url: str) -> str:
    """The URL with the absolute path of its file; URLs without a file stay unchanged."""
    if url.startswith(JOURNAL_PREFIX):
        return f"{JOURNAL_PREFIX}{Path(url.removeprefix(JOURNAL_PREFIX)).absolute()}"
    prefix = SQLITE_PREFIX.match(url)
    if prefix is None or is_in_memory(url):
        return url
    path = url[prefix.end() :]
    return f"{prefix[0]}{path if path.startswith('/') else f'{_quoted(Path.cwd())}/{path}'}"


def has_password(url: str) -> bool:
    """Whether the URL holds a password, before the host or in its query."""
    return bool(_password(url)) or (
        not _is_file(url) and SECRETS_IN_QUERIES.search(url) is not None
    )


def is_encoded(url: str) -> bool:
    """Whether the special characters of the URL's password, if it has one, are percent-encoded."""
    return NOT_ENCODED.search(_password(url)) is None


def without_password(url: str) -> str:
    """The URL without its password, or any part of it: fit to be shown and stored."""
    if url.startswith(JOURNAL_PREFIX):
        return url
    import sqlalchemy  # importing takes a third of a second, too long for --help

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
    """The password between the user's name and the last '@'; it may contain '@' itself."""
    if _is_file(url):
        return ""
    return url.partition("://")[2].rpartition("@")[0].partition(":")[2]


def _is_file(url: str) -> bool:
    return url.startswith((JOURNAL_PREFIX, "sqlite"))


def _quoted(path: Path) -> str:
    return SPECIAL_IN_PATHS.sub(lambda found: f"%{ord(found[0]):02X}", str(path))
