"""Who may ask a server: the address it listens at, and the token that others must show."""

import ipaddress
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Final

from sgformer.errors import InputError

SHORTEST: Final = 16
SERVE_TOKEN: Final = "HPO_SERVE_TOKEN"
DASHBOARD_TOKEN: Final = "HPO_DASHBOARD_TOKEN"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address or name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address; port 0: any free one.

    Raises:
        InputError: There is no such address, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host}:{port}: {reason} (--host, --port)") from None
    return opened


def take_token(file: Path | None, host: str, variable: str) -> tuple[str | None, bool]:
    """The token that clients must show, and whether it was made here and nobody knows it yet.

    It is taken from the file, else from the environment variable, which is removed, so that no
    other process gets it; else one is made if the host is not loopback.

    Raises:
        InputError: The file cannot be read, others can read it, or the token is too short.
    """
    given = os.environ.pop(variable, None)
    if file is not None:
        return _checked(_read_private(file), str(file)), False
    if given is not None:
        return _checked(given.strip(), variable), False
    return (None, False) if is_loopback(host) else (secrets.token_urlsafe(32), True)


def is_same(shown: str, expected: str) -> bool:
    """Whether a client showed the expected secret; takes as long whatever it showed."""
    return secrets.compare_digest(shown.encode(), expected.encode())


def _checked(token: str, origin: str) -> str:
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise InputError(
            f"the token of {origin} has {len(token)} characters; expected at least {SHORTEST}, "
            "of printable ASCII (--token-file)"
        )
    return token


def _read_private(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token in {file}: {error} (--token-file)") from None
    if mode & 0o077:
        raise InputError(
            f"others can read the token in {file} (mode {mode:03o}; expected 600): run "
            f"`chmod 600 {file}` (--token-file)"
        )
    return text
