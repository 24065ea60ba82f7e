"""Serves optuna-dashboard for a run's study, on loopback only, as it has no authentication."""

import ipaddress
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from hpo.errors import StudyError
from hpo.study.study import SearchStudy

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_dashboard(study: SearchStudy, host: str, port: int) -> tuple[WSGIServer, str]:
    """The server, to be run with `serve_forever`, and the URL of the study's page.

    Raises:
        StudyError: The host is not loopback, or the port is taken.
    """
    from optuna_dashboard import wsgi

    if host != "localhost" and not _is_loopback(host):
        raise StudyError(
            f"the dashboard has no authentication, so it listens on loopback only, got "
            f"{host!r}; reach it from elsewhere through an SSH tunnel (--host)"
        )
    page = f"/dashboard/studies/{study.id}"
    app = _guard(wsgi(study.storage), page)
    try:
        server = make_server(host, port, app, _Server, _Quiet)
    except (OSError, OverflowError) as error:
        raise StudyError(f"cannot listen on {host}:{port}: {error} (--port)") from None
    return server, f"http://{host}:{server.server_port}{page}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guard(app: WsgiApp, page: str) -> WsgiApp:
    """Redirects / to the study's page, and refuses requests with a foreign host or origin.

    Otherwise a foreign web page could delete studies after having its own name resolve to
    127.0.0.1 (DNS rebinding).
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = environ.get("HTTP_HOST", "").rsplit(":", 1)[0].strip("[]")
        origin = environ.get("HTTP_ORIGIN")
        foreign = origin is not None and origin != f"http://{environ.get('HTTP_HOST')}"
        if foreign or (name != "localhost" and not _is_loopback(name)):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this dashboard answers on loopback only\n"]
        if environ.get("PATH_INFO") in {"", "/"}:
            start_response("302 Found", [("Location", page)])
            return [b""]
        return app(environ, start_response)

    return guarded
