"""Who gets through to optuna-dashboard, over a socket."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import optuna
import pytest
from dashboards import Answer, Served, served
from optuna.storages import BaseStorage
from optuna_dashboard import wsgi

from hpo.dashboard.guard import Access
from hpo.dashboard.routes import READS, WRITES
from hpo.study.storage import open_cached_storage

TOKEN = "a token of 23 letters .."
BEARER = {"Authorization": f"Bearer {TOKEN}"}
VALUES = {
    "study_id:int": "1", "trial_id:int": "1", "history_id": "a", "plot_type": "slice",
    "filename:path": "bundle.js", ":re:(/.*)?": "/studies/1", "artifact_id:re:[0-9a-fA-F-]+": "a",
}  # fmt: skip


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> BaseStorage:
    folder = tmp_path_factory.mktemp("storage")
    storage = open_cached_storage(f"sqlite:///{folder / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name="one")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    return storage


@pytest.fixture(scope="module")
def local(storage: BaseStorage) -> Iterator[Served]:
    with served(storage, Access("127.0.0.1")) as one:
        yield one


@pytest.fixture
def remote(storage: BaseStorage) -> Iterator[Served]:
    with served(storage, Access("0.0.0.0", TOKEN)) as one:
        yield one


def path_of(rule: str) -> str:
    for name, value in VALUES.items():
        rule = rule.replace(f"<{name}>", value)
    assert "<" not in rule
    return rule


def test_every_route_of_optuna_dashboard_is_known_to_read_or_to_write() -> None:
    app = wsgi(optuna.storages.InMemoryStorage())
    assert {(route.method, route.rule) for route in app.routes} == READS | WRITES
    assert not READS & WRITES
    assert {method for method, _ in READS} == {"GET"}


@pytest.mark.parametrize(("method", "rule"), sorted(WRITES))
def test_what_writes_is_refused(
    local: Served, storage: BaseStorage, method: str, rule: str
) -> None:
    trials = storage.get_all_trials(1)
    body = {"study_name": "two", "directions": ["minimize"], "state": "fail", "body": "a"}
    answer = local.ask(
        path_of(rule), method, json.dumps(body).encode(), Content_Type="application/json"
    )
    assert (answer.status, "--allow-edit" in answer.json["reason"]) == (403, True)
    assert [study.study_name for study in storage.get_all_studies()] == ["one"]
    assert storage.get_all_trials(1) == trials


@pytest.mark.parametrize(("method", "rule"), sorted(READS))
def test_what_reads_is_answered(local: Served, method: str, rule: str) -> None:
    assert local.ask(path_of(rule), method).status in {200, 302, 400}
    assert local.ask(path_of(rule), "HEAD").status in {200, 302, 400}


@pytest.mark.parametrize("method", ["PATCH", "PUT", "TRACE", "OPTIONS", "PROXY", "delete"])
def test_methods_that_no_route_has_are_refused(local: Served, method: str) -> None:
    assert local.ask("/api/studies/1", method).status in {400, 403, 404}


@pytest.mark.parametrize("path", ["/api/studies/1/", "//api/studies/1", "/api/studies/1%00"])
def test_other_spellings_of_a_path_do_not_get_through(
    local: Served, storage: BaseStorage, path: str
) -> None:
    assert local.ask(path, "DELETE", b"{}").status in {400, 403, 404}
    assert len(storage.get_all_studies()) == 1


def test_who_may_edit_edits(storage: BaseStorage) -> None:
    with served(storage, Access("127.0.0.1", may_edit=True)) as one:
        note = json.dumps({"version": 1, "body": "mine"}).encode()
        sent = {"Content_Type": "application/json", "Origin": f"http://localhost:{one.port}"}
        assert one.ask("/api/studies/1/note", "PUT", note, **sent).status == 204
        assert one.ask("/api/studies/1").json["note"] == {"version": 1, "body": "mine"}
        sent["Origin"] = "http://evil.example"
        assert one.ask("/api/studies/1", "DELETE", b"{}", **sent).status == 403
        assert len(storage.get_all_studies()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:80"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Host": "192.0.2.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_pages_of_elsewhere_are_not_answered(local: Served, headers: dict[str, str]) -> None:
    assert local.ask("/api/studies", **headers).status == 403


def test_on_loopback_no_token_is_needed(local: Served) -> None:
    assert local.link is None
    assert local.ask("/api/studies", Host="127.0.0.1").status == 200
    assert local.ask("/api/studies", Host="[::1]:8080").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer another token of 23 .."},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xe9"},
        {"Cookie": f"hpo_dashboard={TOKEN}"},
        {"Cookie": "hpo_dashboard="},
        {"Cookie": "=;;,{"},
    ],
)
def test_elsewhere_a_token_is_needed(remote: Served, headers: dict[str, str]) -> None:
    answer = remote.ask("/api/studies", **headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN.encode() not in answer.body


def test_a_token_lets_in_and_a_name_of_elsewhere_does_not(remote: Served) -> None:
    assert remote.ask("/api/studies", **BEARER).status == 200
    assert remote.ask("/api/studies", Host="192.0.2.1:8080", **BEARER).status == 200
    assert remote.ask("/api/studies", Host="evil.example", **BEARER).status == 403
    assert remote.ask("/api/studies/1", "DELETE", b"{}", **BEARER).status == 403


def cookie_of(answer: Answer) -> str:
    assert answer.status == 303
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert TOKEN not in cookie
    return cookie.split(";")[0]


def test_the_link_lets_in_once(remote: Served) -> None:
    assert remote.link is not None
    found = urlsplit(remote.link)
    link = f"{found.path}?{found.query}"
    assert remote.ask(f"{found.path}?key=another").status == 401
    assert remote.ask(link, "HEAD").status == 401  # a program that previews it
    cookie = cookie_of(remote.ask(link))
    assert remote.ask("/api/studies", Cookie=cookie).status == 200
    assert remote.ask(link).status == 401
    assert remote.ask("/api/studies", Cookie=cookie).status == 200


def test_the_token_lets_in_a_browser_without_the_link(remote: Served) -> None:
    page = remote.ask("/", Accept="text/html")
    assert (page.status, b'<form method="post" action="/enter"' in page.body) == (401, True)
    origin = {"Origin": f"http://localhost:{remote.port}"}
    assert remote.ask("/enter", "POST", b"token=wrong", **origin).status == 401
    form = f"token={TOKEN.replace(' ', '+')}".encode()
    assert remote.ask("/enter", "POST", form, Origin="http://evil.example").status == 403
    cookie = cookie_of(remote.ask("/enter", "POST", form, **origin))
    assert remote.ask("/api/studies", Cookie=cookie).status == 200


@pytest.mark.parametrize(
    "path", ["/dashboard", "/api/studies", "/static/bundle.js", "/artifacts/1/a", "/nowhere"]
)
def test_every_answer_keeps_other_pages_out(local: Served, path: str) -> None:
    headers = local.ask(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_it_opens_at_the_studies(local: Served) -> None:
    answer = local.ask("/")
    assert (answer.status, answer.headers["location"]) == (302, "/dashboard")
    assert b"Optuna Dashboard" in local.ask("/dashboard").body
