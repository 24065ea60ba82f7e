"""Bounds what a request's body may hold and how long it may take, and finds the image in it."""

import asyncio
import base64
import binascii
import contextlib
from typing import Annotated, Any, Final, NamedTuple

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FIELD: Final = "image"
FEATURES: Final = "features"
Features = dict[str, float | str | list[float]] | list[float] | None
RAW: Final = ("application/octet-stream", "image/*")
SECONDS_OF_THE_REST: Final = 2.0  # an unread body is read on for this time, so that who sends it
BYTES_OF_THE_REST: Final = 64 * 2**20  # hears the answer, as web servers do (lingering close)


class Base64Image(BaseModel):
    """An image file's bytes as base64, and its features for a model that takes them."""

    model_config = ConfigDict(extra="forbid")
    image: Annotated[str, StringConstraints(min_length=1)]
    features: Features = None


class SentImage(NamedTuple):
    """An image file's bytes, and its features by column, or as all their numbers."""

    content: bytes
    features: Features


class BoundedBodies:
    """ASGI middleware: no body is larger, or takes longer, than it may.

    Reading a body raises HTTPException 413 or 408. An answer before the end of the body closes
    the connection.

    Args:
        app: The application.
        most_bytes: The most bytes of a body.
        seconds: The time from a request's headers to the end of its body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, seconds: float) -> None:
        self._app, self._most_bytes, self._seconds = app, most_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the application with a bounded `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive, self._most_bytes, self._seconds)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                await body.skip_rest()
                if not body.is_complete:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, body.receive, answer)


class _Body:
    """A body that is being received."""

    def __init__(
        self, headers: Headers, receive: Receive, most_bytes: int, seconds: float
    ) -> None:
        self.is_complete = False
        self._receive, self._most_bytes, self._seconds = receive, most_bytes, seconds
        self._end = asyncio.get_running_loop().time() + seconds
        self._num_bytes = 0
        declared = headers.get("content-length", "")
        self._declared = int(declared) if declared.isdecimal() else 0
        self._asks_first = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        """The next part; after the last one, what the server says of the connection."""
        if self.is_complete:
            return await self._receive()
        if self._declared > self._most_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._next()
        except TimeoutError:
            raise HTTPException(
                408, f"the body did not arrive within {self._seconds:g} seconds (--timeout)"
            ) from None
        if self._num_bytes > self._most_bytes:
            raise self._too_large()
        return message

    async def skip_rest(self) -> None:
        """Reads on for a short time, unless the client waits for a word before it sends."""
        if self._asks_first and self._num_bytes == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_OF_THE_REST):
                while not self.is_complete and self._num_bytes < BYTES_OF_THE_REST:
                    await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"the body is larger than {self._most_bytes:,} bytes (--max-megabytes)"
        )


async def read_image(request: Request) -> SentImage:
    """The image file in a request: its body, a form's field, or base64 in JSON; with features.

    A body that is an image alone has no features.

    Raises:
        HTTPException: 400, 408, 413 or 415: there is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    sent = SentImage(await request.body(), None)
    if kind == "multipart/form-data":
        sent = await _from_form(request)
    elif kind == "application/json":
        sent = _from_json(sent.content)
    elif kind and kind != RAW[0] and not kind.startswith("image/"):
        raise HTTPException(
            415,
            f"Content-Type {kind!r} is none of {', '.join(RAW)} (the image itself), "
            f"multipart/form-data (with a file {FIELD!r}), application/json (with {FIELD!r} as "
            "base64)",
        )
    if not sent.content:
        raise HTTPException(400, "there is no image: the body, or its image, is empty")
    return sent


async def _from_form(request: Request) -> SentImage:
    # Starlette raises HTTPException 400 if the form is broken.
    async with request.form(max_files=1, max_fields=8) as form:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise HTTPException(400, f"the form has no file in its field {FIELD!r}")
        told = form.get(FEATURES)  # a page's form sends a field that is left empty as ""
        return SentImage(await file.read(), _features(told) if told else None)


def _features(told: object) -> Features:
    """The features in a form's field, which is JSON."""
    try:
        return _FEATURES.validate_json(told if isinstance(told, str) else "")
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise HTTPException(
            400,
            f"the form's field {FEATURES!r} is no JSON of an object by column or a list of "
            f"numbers: {reason}",
        ) from None


_FEATURES: Final = TypeAdapter[Features](Features)


def _from_json(content: bytes) -> SentImage:
    try:
        sent = Base64Image.model_validate_json(content)
        return SentImage(base64.b64decode(sent.image, validate=True), sent.features)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise HTTPException(
            400, f'not JSON of the form {{"{FIELD}": "<base64>"}}: {reason}'
        ) from None
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, f"{FIELD!r} is not base64: {error}") from None


def request_body_schema() -> dict[str, Any]:
    """How OpenAPI describes the body, so that its page has a form that takes a picture."""
    file = {"type": "string", "format": "binary"}
    told = {
        "type": "string",
        "description": "JSON: an object by column, or a list of numbers.",
        "default": "",  # else the page fills in "string"
    }
    properties = {FIELD: file, FEATURES: told}
    form = {"type": "object", "required": [FIELD], "properties": properties}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": Base64Image.model_json_schema()},
        }
        | {kind: {"schema": file} for kind in RAW},
    }
