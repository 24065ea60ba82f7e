import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from command_line import PATIENCE_SECONDS, environment_of_a_test
from other_server import other_server
from ports import free_port
from ray_heads import RayHead

from hpo.errors import ClusterError
from hpo.execution.cluster_access import asks_for_token, check_address, find_token

TOKEN = "a" * 40
VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USE_TLS")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no settings of Ray."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265", "host:port", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match=f"not a Ray address: '{address}'; expected HOST:PORT"):
        check_address(address)


def test_an_address_where_nobody_answers_is_named_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+"):
        check_address(f"127.0.0.1:{free_port()}")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_an_address_where_something_else_answers_is_named_at_once(answer: bytes | None) -> None:
    # The first connection only asks whether anybody answers.
    with other_server(answer, num_closed=1) as address:
        start = time.monotonic()
        message = f"what answers at {address} is no Ray cluster without TLS"
        with pytest.raises(ClusterError, match=message):
            check_address(address)
        assert time.monotonic() - start < 10


def test_a_cluster_without_tokens_beyond_loopback_is_refused(open_address: str) -> None:
    address, port = open_address, open_address.rpartition(":")[2]
    with pytest.raises(ClusterError) as caught:
        check_address(address)
    first, *lines, last = str(caught.value).splitlines()
    assert first.startswith(f"the Ray cluster at {address} has no token authentication")
    assert [line.split("  #")[0].strip() for line in lines] == [
        "(umask 077; ray get-auth-token --generate >/dev/null)",
        "export RAY_AUTH_MODE=token",
        f"ray stop; ray start --head --port={port}",
    ]
    assert last.startswith("--insecure")
    check_address(address, insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_a_cluster_without_tokens_on_loopback_is_accepted(open_address: str, host: str) -> None:
    check_address(f"{host}:{open_address.rpartition(':')[2]}")


def write_token(path: Path, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    return path


def test_a_token_is_looked_for_where_ray_looks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_token() is None
    origins = [str(write_token(home / ".ray" / "auth_token"))]
    assert find_token().origin == origins[0]
    path = write_token(home / "elsewhere")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert find_token().origin == str(path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert find_token().origin == "RAY_AUTH_TOKEN"
    assert find_token().text == TOKEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_file_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    path = write_token(home / ".ray" / "auth_token", mode)
    with pytest.raises(ClusterError, match=rf"others can read .*{path} \(mode {mode:o}; .*chmod"):
        find_token()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_token_file_of_another_user_is_that_users_matter(home: Path) -> None:
    os.chown(write_token(home / ".ray" / "auth_token", 0o644), 65534, 65534)
    assert find_token().text == TOKEN


def test_a_token_file_that_is_named_and_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(ClusterError, match=r"cannot read Ray's token in /nowhere/token"):
        find_token()


def test_a_service_accounts_token_is_looked_for_in_its_pod(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ENABLE_K8S_TOKEN_AUTH", "true")
    with pytest.raises(ClusterError, match="serviceaccount/token"):
        find_token()


def test_certificates_that_are_missing_are_said(
    open_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.setenv("RAY_TLS_CA_CERT", "/nowhere/ca.crt")
    with pytest.raises(ClusterError, match=r"cannot read Ray's certificates: .*/nowhere/ca\.crt"):
        check_address(open_address)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ray's settings of TLS, with a certificate of this machine's loopback, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", "key", "-out", "crt", "-days", "2", "-subj", "/CN=ray",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": str(folder / "crt"),
        "RAY_TLS_SERVER_CERT": str(folder / "crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "key"),
    }


@pytest.fixture(scope="module")
def heads(certificates: dict[str, str]) -> Iterator[dict[str, RayHead]]:
    """A Ray head without tokens, one with one, and one with a token and TLS."""
    tokens = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    started = {
        "open": RayHead(listens_on_loopback=True, RAY_AUTH_MODE="disabled"),
        "token": RayHead(**tokens),
        "tls": RayHead(listens_on_loopback=True, **tokens, **certificates),
    }
    try:
        yield {name: head.wait() for name, head in started.items()}
    finally:
        for head in started.values():
            head.stop()


@pytest.mark.cluster
def test_a_cluster_asks_for_a_token_and_takes_its_own(
    heads: dict[str, RayHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = heads["token"].address
    assert asks_for_token(address)
    assert not asks_for_token(heads["open"].address)
    with pytest.raises(ClusterError, match=f"at {address} asks for a token, and there is none"):
        check_address(address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(ClusterError, match=f"at {address} refuses the token of RAY_AUTH_TOKEN"):
        check_address(address, insecure=True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    check_address(address)


@pytest.mark.cluster
def test_a_cluster_with_tls_is_asked_with_tls(
    heads: dict[str, RayHead], certificates: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = heads["tls"].address
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(ClusterError, match=f"{address} is no Ray cluster without TLS.*USE_TLS"):
        check_address(address)
    for name, value in certificates.items():
        monkeypatch.setenv(name, value)
    check_address(address)
    with pytest.raises(ClusterError, match=r"is no Ray cluster with TLS.*RAY_USE_TLS"):
        check_address(heads["token"].address)


# Prints how many nodes the cluster has, or why it cannot be used.
DRIVER = """
from hpo.errors import ClusterError
from hpo.execution.cluster import cluster_nodes, connected
try:
    with connected(sys.argv[1]): print(len(cluster_nodes()), "node")
except ClusterError as error: print(error)
"""
NODE = """
sys.argv = ["ray", "start", f"--address={sys.argv[1]}", "--block", "--num-cpus=1"]
from ray.scripts.scripts import main
main()
"""
# Programs that take themselves for others: no second version of Ray or Python is at hand.
PRETEND = "from ray._private import utils; utils.compute_version_info = lambda: {}"
RAY, PYTHON = ray.__version__, platform.python_version()
OTHER_VERSIONS = [("1.2.3", PYTHON), (RAY, "2.7.18")]


def _run(program: str, head: RayHead, begin: str = "", **environment: str) -> tuple[str, str]:
    """What the program prints, on both streams."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{begin}\n{program}", head.address],
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        env=environment_of_a_test() | head.for_drivers | environment,
    )  # fmt: skip
    return done.stdout, done.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["open", "token", "tls"])
def test_a_driver_uses_token_and_tls_as_the_cluster_does(
    heads: dict[str, RayHead], certificates: dict[str, str], home: Path, name: str
) -> None:
    write_token(home / ".ray" / "auth_token")
    settings = certificates if name == "tls" else {}
    out, err = _run(DRIVER, heads[name], **settings)
    assert out == "1 node\n", err


@pytest.mark.cluster
@pytest.mark.parametrize("versions", OTHER_VERSIONS)
def test_a_cluster_of_another_version_is_refused(
    heads: dict[str, RayHead], versions: tuple[str, str]
) -> None:
    head = heads["open"]
    out, err = _run(DRIVER, head, PRETEND.format(versions))
    there, here = f"Ray {RAY} and Python {PYTHON}", "Ray {} and Python {}".format(*versions)
    assert out.startswith(
        f"cannot use the Ray cluster at {head.address}: it has {there}, and here are {here}; "
    ), err
    assert len(out.splitlines()) == 1


@pytest.mark.cluster
@pytest.mark.parametrize("versions", OTHER_VERSIONS)
def test_ray_itself_refuses_a_node_of_another_version(
    heads: dict[str, RayHead], versions: tuple[str, str]
) -> None:
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    _, err = _run(NODE, heads["token"], PRETEND.format(versions), **settings)
    assert "Version mismatch" in err
    node = err[err.index("This process on node") :]
    assert "Ray: {}\n    Python: {}\n".format(*versions) in node
