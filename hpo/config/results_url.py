"""The URLs to which a run's results and checkpoints are copied."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

WORKING_FOLDER: Final = Path("runs")  # where a run works if --output-dir is a URL
URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECRET: Final = re.compile(r"key|secret|token|passw|pwd|sas|sig", re.IGNORECASE)


def is_url(text: str) -> bool:
    return URL.match(text) is not None


def has_secret(url: str) -> bool:
    """Whether the URL holds a password, or a key or token among its options."""
    parts = urlsplit(url)
    options = (name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return parts.password is not None or any(map(SECRET.search, options))


def url_below(url: str, name: str) -> str:
    """The URL of a folder in the folder of a URL, which may have options after a ?."""
    place, mark, options = url.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
