"""Who may ask: the bearer token that addresses beyond loopback need."""

import ipaddress
import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sgformer.errors import InputError

VARIABLE: Final = "HPO_SERVE_TOKEN"
SHORTEST: Final = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address or name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def take_token(file: Path | None, host: str) -> tuple[str | None, bool]:
    """The token that clients must show, and whether it was made here and nobody knows it yet.

    It is taken from the file, else from HPO_SERVE_TOKEN, which is removed from the environment,
    so that no other process gets it; else one is made if the host is not loopback.

    Raises:
        InputError: The file cannot be read, others can read it, or the token is too short.
    """
    given = os.environ.pop(VARIABLE, None)
    if file is not None:
        return _checked(_read_private(file), str(file)), False
    if given is not None:
        return _checked(given.strip(), VARIABLE), False
    return (None, False) if is_loopback(host) else (secrets.token_urlsafe(32), True)


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


def token_check(token: str) -> Callable[..., Awaitable[None]]:
    """A dependency of FastAPI that refuses requests without the token."""
    expected = token.encode()
    bearer = HTTPBearer(auto_error=False)

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        shown = given.credentials.encode() if given is not None else b""
        if not secrets.compare_digest(shown, expected):
            raise HTTPException(
                401, "a token is needed: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    return check
