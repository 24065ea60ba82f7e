"""The application behind the guard: optuna-dashboard, and what is answered in its place."""

from collections.abc import Iterable

from bottle import Bottle

from hpo.dashboard.guard import Environ, StartResponse


class DashboardApp:
    """Answers requests that the guard lets through.

    Args:
        optuna_app: optuna-dashboard.
        page: The path of the page that / leads to.
    """

    def __init__(self, optuna_app: Bottle, page: str) -> None:
        self._optuna_app, self._page = optuna_app, page

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, as WSGI has it."""
        if environ.get("PATH_INFO") in {"", "/"}:
            start_response("302 Found", [("Location", self._page), ("Content-Length", "0")])
            return [b""]
        answer: Iterable[bytes] = self._optuna_app(environ, start_response)
        return answer
