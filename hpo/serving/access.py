"""Refuses requests without the token, as a dependency of FastAPI."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hpo.access import is_same


def token_check(token: str) -> Callable[..., Awaitable[None]]:
    """A dependency of FastAPI that refuses requests without the token."""
    bearer = HTTPBearer(auto_error=False)

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        if not is_same("" if given is None else given.credentials, token):
            raise HTTPException(
                401, "a token is needed: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    return check
