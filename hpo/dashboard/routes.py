"""The routes of optuna-dashboard: which of them read, and which write."""

from enum import Enum, auto
from typing import Any, Final

from bottle import Bottle, HTTPError

_STUDY: Final = "/api/studies/<study_id:int>"
_TRIAL_FILES: Final = "/artifacts/<study_id:int>/<trial_id:int>"
_STUDY_FILES: Final = "/artifacts/<study_id:int>"
_ID: Final = "<artifact_id:re:[0-9a-fA-F-]+>"
STATIC: Final = ("GET", "/static/<filename:path>")
META: Final = ("GET", "/api/meta")
STUDIES: Final = ("GET", "/api/studies")
STUDY: Final = ("GET", _STUDY)
ARTIFACTS: Final = (("GET", f"{_STUDY_FILES}/{_ID}"), ("GET", f"{_TRIAL_FILES}/{_ID}"))

READS: Final = frozenset(
    {
        ("GET", "/"),
        ("GET", "/dashboard<:re:(/.*)?>"),
        ("GET", "/favicon.ico"),
        STATIC,
        META,
        STUDIES,
        STUDY,
        ("GET", f"{_STUDY}/param_importances"),
        ("GET", f"{_STUDY}/plot/<plot_type>"),
        ("GET", "/csv/<study_id:int>"),
        ("GET", "/incompatible-rdb-schema"),
        *ARTIFACTS,
    }
)
# The last three ask a language model, if one is set up: they send the study's data away.
WRITES: Final = frozenset(
    {
        ("POST", "/api/studies"),
        ("POST", f"{_STUDY}/rename"),
        ("DELETE", _STUDY),
        ("PUT", f"{_STUDY}/note"),
        ("POST", f"{_STUDY}/preference"),
        ("PUT", f"{_STUDY}/preference_feedback_component"),
        ("DELETE", f"{_STUDY}/preference/<history_id>"),
        ("POST", f"{_STUDY}/preference/<history_id>"),
        ("POST", "/api/trials/<trial_id:int>/tell"),
        ("POST", "/api/trials/<trial_id:int>/user-attrs"),
        ("POST", f"{_STUDY}/<trial_id:int>/skip"),
        ("PUT", f"{_STUDY}/<trial_id:int>/note"),
        ("POST", "/incompatible-rdb-schema"),
        ("POST", f"/api{_TRIAL_FILES}"),
        ("POST", f"/api{_STUDY_FILES}"),
        ("DELETE", f"/api{_TRIAL_FILES}/{_ID}"),
        ("DELETE", f"/api{_STUDY_FILES}/{_ID}"),
        ("POST", "/api/llm/trial_filter_query"),
        ("POST", "/api/llm/generate_plotly_graph_query"),
        ("POST", "/api/llm/re_generate_plotly_graph_query"),
    }
)
Route = tuple[str, str]


class Kind(Enum):
    """What a request does; UNKNOWN: no route of optuna-dashboard that is listed here takes it."""

    READS = auto()
    WRITES = auto()
    UNKNOWN = auto()


def route_of(app: Bottle, environ: dict[str, Any]) -> tuple[Route | None, dict[str, Any]]:
    """The route that optuna-dashboard will take for a request, and the values in its path."""
    # Bottle answers HEAD by the routes of GET; optuna-dashboard drops a slash at the end.
    method = environ["REQUEST_METHOD"].upper().replace("HEAD", "GET")
    path = environ.get("PATH_INFO", "").rstrip("/")
    try:
        route, values = app.match({"REQUEST_METHOD": method, "PATH_INFO": path})
    except HTTPError:
        return None, {}
    return (route.method, route.rule), values


def kind_of(route: Route | None) -> Kind:
    """What a request to a route does."""
    if route in READS:
        return Kind.READS
    return Kind.WRITES if route in WRITES else Kind.UNKNOWN
