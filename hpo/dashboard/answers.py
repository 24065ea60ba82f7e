"""Answers of HTTP, as WSGI gives them."""

import gzip
import json
from collections.abc import Iterable
from typing import Any, BinaryIO, Final

from hpo.dashboard.guard import Environ, Headers, StartResponse

CHUNK_BYTES: Final = 2**16
JSON: Final = "application/json"
REVALIDATE: Final = "private, no-cache"  # a browser keeps the answer, and asks whether it holds


def answer(
    environ: Environ, start_response: StartResponse, content: bytes, headers: Headers,
    status: str = "200 OK",
) -> Iterable[bytes]:  # fmt: skip
    """An answer with this content; HEAD gets its headers alone."""
    start_response(status, [*headers, ("Content-Length", str(len(content)))])
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def answer_json(
    environ: Environ, start_response: StartResponse, values: Any, status: str = "200 OK"
) -> Iterable[bytes]:
    """An answer of JSON."""
    content = json.dumps(values).encode()
    return answer(environ, start_response, content, [("Content-Type", JSON)], status)


def answer_compressed(
    environ: Environ, start_response: StartResponse, tag: str, compressed: bytes, kind: str
) -> Iterable[bytes]:
    """An answer that is kept by gzip; 304 where the client has what the tag names."""
    headers = [("ETag", f'"{tag}"'), ("Cache-Control", REVALIDATE), ("Vary", "Accept-Encoding")]
    if f'"{tag}"' in environ.get("HTTP_IF_NONE_MATCH", ""):
        start_response("304 Not Modified", headers)
        return [b""]
    headers.append(("Content-Type", kind))
    if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
        return answer(environ, start_response, gzip.decompress(compressed), headers)
    headers.append(("Content-Encoding", "gzip"))
    return answer(environ, start_response, compressed, headers)


def answer_file(
    environ: Environ, start_response: StartResponse, file: BinaryIO, headers: Headers
) -> Iterable[bytes]:
    """An answer with a file's content, which is read as it is sent."""
    start_response("200 OK", headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        file.close()
        return [b""]
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is not None:
        wrapped: Iterable[bytes] = wrapper(file, CHUNK_BYTES)
        return wrapped
    return iter(lambda: file.read(CHUNK_BYTES), b"")
