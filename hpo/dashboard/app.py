"""The application behind the guard: optuna-dashboard, and what is answered in its place."""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qs

from bottle import Bottle
from optuna.storages import BaseStorage

from hpo.dashboard.answers import JSON, answer, answer_compressed, answer_file, answer_json
from hpo.dashboard.details import SEARCH_CONFIG, StudyDetails
from hpo.dashboard.guard import Environ, StartResponse
from hpo.dashboard.page import SCRIPT, PageScript
from hpo.dashboard.routes import ARTIFACTS, META, STATIC, STUDIES, STUDY, route_of
from hpo.run_folder import RunFolder
from hpo.study.gate import AWAY

NO_STUDY: Final = "there is no such study"
IS_AWAY: Final = "the study's database does not answer"
Values = dict[str, Any]
Answer = Callable[[Environ, StartResponse, Values], Iterable[bytes]]


class DashboardApp:
    """Answers requests that the guard lets through.

    Args:
        optuna_app: optuna-dashboard.
        storage: The studies.
        page: The path of the page that / leads to.
        folders: The run folders that are known, by the study's id.
        may_edit: Whether pages offer what changes studies.
    """

    def __init__(
        self,
        optuna_app: Bottle,
        storage: BaseStorage,
        page: str,
        folders: dict[int, RunFolder],
        *,
        may_edit: bool,
    ) -> None:
        self._optuna_app, self._storage = optuna_app, storage
        self._page, self._folders = page, folders
        self._script = PageScript(may_edit=may_edit)
        self._details: dict[int, StudyDetails] = {}
        self._lock = threading.Lock()
        self._own: dict[Any, Answer] = {
            ("GET", "/"): self._lead_to_the_page,
            META: self._tell_of_itself,
            STATIC: self._send_static,
            STUDIES: self._list_studies,
            STUDY: self._tell_of_a_study,
            **dict.fromkeys(ARTIFACTS, self._send_file),
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request, as WSGI has it."""
        route, values = route_of(self._optuna_app, environ)
        if (own := self._own.get(route)) is not None:
            return own(environ, start_response, values)
        content = self._ask_optuna(environ, start_response)
        if route is not None and route[0] != "GET":
            for details in list(self._details.values()):
                details.forget()
        return content

    def prepare(self) -> None:
        """Reads the studies whose runs are known, so that the first page is there at once."""
        for study_id in self._folders:
            self._details_of(study_id).changes("")

    def _ask_optuna(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._optuna_app(environ, start_response)
        return answer

    def _lead_to_the_page(
        self, environ: Environ, start_response: StartResponse, _: Values
    ) -> Iterable[bytes]:
        return answer(environ, start_response, b"", [("Location", self._page)], "302 Found")

    def _tell_of_itself(
        self, environ: Environ, start_response: StartResponse, _: Values
    ) -> Iterable[bytes]:
        """What the page may show: files, which optuna-dashboard itself is not given."""
        return self._changed(
            environ, start_response, lambda meta: {**meta, "artifact_is_available": True}
        )

    def _list_studies(
        self, environ: Environ, start_response: StartResponse, _: Values
    ) -> Iterable[bytes]:
        def shorten(listed: Values) -> Values:
            for study in listed["study_summaries"]:
                if any(one["key"] == SEARCH_CONFIG for one in study["user_attrs"]):
                    study["user_attrs"] = []
            return listed

        return self._changed(environ, start_response, shorten)

    def _changed(
        self, environ: Environ, start_response: StartResponse, change: Callable[[Values], Values]
    ) -> Iterable[bytes]:
        """optuna-dashboard's JSON, changed."""
        told: list[Any] = []
        content = b"".join(
            self._ask_optuna(
                {**environ, "REQUEST_METHOD": "GET"}, lambda *start: told.append(start)
            )
        )
        if not told[0][0].startswith("200"):
            return answer(environ, start_response, content, [("Content-Type", JSON)], told[0][0])
        return answer_json(environ, start_response, change(json.loads(content)))

    def _send_static(
        self, environ: Environ, start_response: StartResponse, values: Values
    ) -> Iterable[bytes]:
        if values["filename"] != SCRIPT:
            return self._ask_optuna(environ, start_response)
        script = self._script
        kind = "text/javascript; charset=utf-8"
        return answer_compressed(environ, start_response, script.tag, script.compressed, kind)

    def _tell_of_a_study(
        self, environ: Environ, start_response: StartResponse, values: Values
    ) -> Iterable[bytes]:
        asked = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        after = asked.get("after", ["0"])[0]
        if not (after.isascii() and after.isdecimal()):
            why = f"after={after}: expected a number, at least 0"
            return answer_json(environ, start_response, {"reason": why}, "400 Bad Request")
        details = self._details_of(values["study_id"])
        try:
            if "since" in asked:
                tag, content = details.changes(asked["since"][0])
                return answer_compressed(environ, start_response, tag, content, JSON)
            return answer_json(environ, start_response, details.whole(int(after)))
        except KeyError:
            self._details.pop(values["study_id"], None)
            return answer_json(environ, start_response, {"reason": NO_STUDY}, "404 Not Found")
        except AWAY:
            return answer_json(environ, start_response, {"reason": IS_AWAY}, "503 Unavailable")

    def _send_file(
        self, environ: Environ, start_response: StartResponse, values: Values
    ) -> Iterable[bytes]:
        file = self._details_of(values["study_id"]).files.find(values["artifact_id"])
        if file is None:
            return self._ask_optuna(environ, start_response)
        try:
            opened = file.open()
        except OSError:
            why = f"{file.name} is no longer there"
            return answer_json(environ, start_response, {"reason": why}, "404 Not Found")
        name = PurePosixPath(file.name).name
        headers = [
            ("Content-Type", file.type),
            ("Content-Disposition", f'inline; filename="{name}"'),
        ]
        return answer_file(environ, start_response, opened, headers)

    def _details_of(self, study_id: int) -> StudyDetails:
        with self._lock:
            if study_id not in self._details:
                self._details[study_id] = StudyDetails(
                    self._storage,
                    study_id,
                    self._folders.get(study_id),
                    knows_paused=self._script.knows_paused,
                )
            return self._details[study_id]
