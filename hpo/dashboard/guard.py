"""The guard: which requests reach optuna-dashboard, which has no authentication of its own."""

import html
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from bottle import Bottle

from hpo.access import is_loopback, is_same
from hpo.dashboard.routes import ARTIFACTS, Kind, kind_of, route_of

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Headers = list[tuple[str, str]]
ENTER: Final = "/enter"
COOKIE: Final = "hpo_dashboard"
MOST_FORM_BYTES: Final = 4096
SAFE: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
OWN_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
ALWAYS: Final = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
# A file of a run, such as report.html, may have scripts. They get an origin of their own, and so
# neither the cookie nor any answer of this server.
SANDBOX: Final = (
    "sandbox allow-scripts allow-popups; default-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'"
)
DROPPED: Final = ("access-control-allow-origin", "server", *(name.lower() for name, _ in SAFE))


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Attributes:
        host: The address that the server listens at.
        token: What clients must show; None: anybody on this machine may look.
        may_edit: Whether requests that write are let through.
        key: The key of the one-time link.
        session: What the cookie of a browser holds that has entered.
    """

    host: str
    token: str | None = None
    may_edit: bool = False
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def knows(self, name: str) -> bool:
        """Whether a request's Host may have this name.

        Of names, only those of this machine: else a web page could have its own name resolve to
        this address (DNS rebinding). Beyond loopback, any address is fine.
        """
        if is_loopback(name):
            return True
        if is_loopback(self.host):
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            names = (self.host, socket.gethostname(), socket.getfqdn())
            return name.lower() in (one.lower() for one in names)


class Guard:
    """Lets through what `access` allows, and adds headers that keep other pages out.

    Args:
        app: Answers the requests that are let through.
        routes: optuna-dashboard, whose routes are known to read or to write.
        access: Who may do what.
    """

    def __init__(self, app: WsgiApp, routes: Bottle, access: Access) -> None:
        self._app, self._routes, self._access = app, routes, access
        self._unused_key: str | None = access.key

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, as WSGI has it."""
        if self._is_foreign(environ):
            return _refuse(
                environ, start_response, "403 Forbidden",
                "this dashboard does not answer under that Host, or to pages of that Origin",
            )  # fmt: skip
        if environ.get("PATH_INFO") == ENTER and self._access.token is not None:
            return self._enter(environ, start_response)
        if not self._has_entered(environ):
            return self._ask_for_token(environ, start_response)
        route, _ = route_of(self._routes, environ)
        kind = kind_of(route)
        if kind == Kind.WRITES and not self._access.may_edit:
            return _refuse(
                environ, start_response, "403 Forbidden",
                "this dashboard is read-only; start it with --allow-edit to change the study",
            )  # fmt: skip
        if kind == Kind.UNKNOWN:
            return _refuse(environ, start_response, "404 Not Found", "there is no such page")
        return self._app(environ, _with_safe_headers(start_response, is_file=route in ARTIFACTS))

    def _is_foreign(self, environ: Environ) -> bool:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if not self._access.knows(_host_name(host)):
            return True
        return origin is not None and origin not in {f"http://{host}", f"https://{host}"}

    def _has_entered(self, environ: Environ) -> bool:
        token = self._access.token
        if token is None:
            return True
        scheme, _, shown = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and is_same(shown.strip(), token):
            return True
        return is_same(_cookie_of(environ), self._access.session)

    def _enter(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Gives a browser its cookie, for the key of the link, once, or for the token."""
        if not self._may_enter(environ):
            return self._ask_for_token(environ, start_response)
        cookie = f"{COOKIE}={self._access.session}; Path=/; HttpOnly; SameSite=Lax"
        headers = [("Location", "/"), ("Set-Cookie", cookie), ("Cache-Control", "no-store")]
        _with_safe_headers(start_response)("303 See Other", [*headers, ("Content-Length", "0")])
        return [b""]

    def _may_enter(self, environ: Environ) -> bool:
        if environ["REQUEST_METHOD"] == "POST":
            length = min(int(environ.get("CONTENT_LENGTH") or 0), MOST_FORM_BYTES)
            form = parse_qs(environ["wsgi.input"].read(length).decode("utf-8", "replace"))
            token = self._access.token
            return token is not None and is_same(form.get("token", [""])[0], token)
        shown = parse_qs(environ.get("QUERY_STRING", "")).get("key", [""])[0]
        # HEAD is what programs send that only look at a link.
        if environ["REQUEST_METHOD"] != "GET" or self._unused_key is None:
            return False
        if not is_same(shown, self._unused_key):
            return False
        self._unused_key = None
        return True

    def _ask_for_token(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        why = (
            "a token is needed: open the link that the command printed (it works once), or send "
            "Authorization: Bearer TOKEN"
        )
        return _refuse(environ, start_response, "401 Unauthorized", why, asks_for_token=True)


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie_of(environ: Environ) -> str:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _with_safe_headers(start_response: StartResponse, *, is_file: bool = False) -> StartResponse:
    """Adds the headers that keep other pages out, and drops what would let them in."""

    def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
        policies = [value for name, value in headers if name.lower() == "content-security-policy"]
        dropped = {*DROPPED, "content-security-policy"}
        kept = [(name, value) for name, value in headers if name.lower() not in dropped]
        policy = SANDBOX if is_file else "; ".join([*(policies or ["default-src 'none'"]), ALWAYS])
        safe = [*kept, *SAFE, ("Content-Security-Policy", policy)]
        if not any(name.lower() == "cache-control" for name, _ in kept):
            safe.append(("Cache-Control", "no-store"))
        return start_response(status, safe, exc_info)

    return start


def _refuse(
    environ: Environ,
    start_response: StartResponse,
    status: str,
    why: str,
    *,
    asks_for_token: bool = False,
) -> Iterable[bytes]:
    """An answer that says why there is no other: a page for browsers, JSON for programs."""
    is_page = "text/html" in environ.get("HTTP_ACCEPT", "")
    body = _page(why, asks_for_token=asks_for_token) if is_page else json.dumps({"reason": why})
    content = body.encode()
    kind = "text/html; charset=utf-8" if is_page else "application/json"
    headers = [("Content-Type", kind), ("Content-Length", str(len(content)))]
    if asks_for_token:
        headers.append(("WWW-Authenticate", "Bearer"))
    headers.append(("Content-Security-Policy", OWN_POLICY))
    _with_safe_headers(start_response)(status, headers)
    return [content]


def _page(why: str, *, asks_for_token: bool) -> str:
    form = (
        f'<form method="post" action="{ENTER}"><label>Token <input name="token" type="password" '
        'autocomplete="off" autofocus></label> <button>Enter</button></form>'
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Dashboard</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{font:1rem/1.5 sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}</style>"
        f"<p>{html.escape(why)}</p>{form if asks_for_token else ''}"
    )
