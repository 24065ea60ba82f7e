"""Checks that a Ray cluster answers, has token authentication, and takes the token of this user.

Ray itself would try for 20 seconds with a wrong token, for minutes where nobody answers, and would
use a cluster without token authentication in silence.
"""

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpo.errors import ClusterError

if TYPE_CHECKING:
    import grpc

PROBE_SECONDS: Final = 4.0
# A request of Ray's control service that takes an empty message. With token authentication it
# needs the token, as all others do. Source: Ray 2.52 to 2.60, gcs_service.proto.
REQUEST: Final = "/ray.rpc.NodeInfoGcsService/CheckAlive"
TOKEN: Final = "RAY_AUTH_TOKEN"
TOKEN_PATH: Final = "RAY_AUTH_TOKEN_PATH"
# Where a pod finds its service account's token, which Ray may be told to use.
K8S_TOKENS: Final = "RAY_ENABLE_K8S_TOKEN_AUTH"
K8S_TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
TLS: Final = "RAY_USE_TLS"
TLS_FILES: Final = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
TRUE: Final = ("1", "true")

WITHOUT_TOKENS: Final = """\
the Ray cluster at {address} has no token authentication: whoever reaches it can run programs \
on it. These lines turn it on (Ray 2.52 or newer):
  (umask 077; ray get-auth-token --generate >/dev/null)  # copy ~/.ray/auth_token to every node
  export RAY_AUTH_MODE=token                             # on every node
  ray stop; ray start --head --port={port}                 # the others: ray start --address=...
--insecure uses the cluster as it is"""


@dataclass(frozen=True)
class Token:
    """A token of Ray, and where it was found: the name of a variable, or a file's path."""

    text: str
    origin: str


def check_address(address: str, *, insecure: bool = False) -> None:
    """Raises ClusterError, within seconds, unless the Ray cluster at HOST:PORT may be used.

    It must answer. If it asks for a token it must take ours, from a file that only its owner can
    read. If it asks for none, it must be at a loopback address, or `insecure` be set.
    """
    peer = peer_at(address)
    if asks_for_token(address):
        _check_token(address)
    elif not insecure and not peer.is_loopback:
        raise no_tokens(address, address.rpartition(":")[2])


def no_tokens(address: str, port: str = "6379") -> ClusterError:
    """The error of a cluster beyond loopback without token authentication."""
    return ClusterError(WITHOUT_TOKENS.format(address=address, port=port))


def asks_for_token(address: str) -> bool:
    """Whether the Ray cluster at HOST:PORT has token authentication.

    Raises:
        ClusterError: Something else than a Ray cluster answers, or the settings of TLS are wrong.
    """
    return not _accepts(address, None)


def find_token() -> Token | None:
    """The token that Ray would use; None: there is none.

    Raises:
        ClusterError: Its file cannot be read, or others than its owner can read it.
    """
    if text := os.environ.get(TOKEN):
        return Token(text, TOKEN)
    given = os.environ.get(TOKEN_PATH)
    if not given and os.environ.get(K8S_TOKENS, "").lower() in TRUE:
        given = K8S_TOKEN_PATH
    path = Path(given) if given else default_token_path()
    if not given and not path.exists():
        return None
    try:
        with path.open() as file:
            _check_private(path, os.fstat(file.fileno()))
            return Token(file.read().strip(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"cannot read Ray's token in {path}: {error} ({TOKEN_PATH})") from None


def default_token_path() -> Path:
    return Path.home() / ".ray" / "auth_token"


def peer_at(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IP address of who answers at HOST:PORT; raises ClusterError if nobody does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ClusterError(
            f"not a Ray address: {address!r}; expected HOST:PORT of a cluster's head, such as "
            "10.0.0.1:6379 (--ray-address)"
        )
    try:
        place = host.strip("[]"), int(port)
        with socket.create_connection(place, timeout=PROBE_SECONDS) as connection:
            return ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error} (--ray-address)"
        ) from None


def _check_token(address: str) -> None:
    token = find_token()
    if token is None:
        raise ClusterError(
            f"the Ray cluster at {address} asks for a token, and there is none here: set {TOKEN} "
            f"or {TOKEN_PATH}, or copy the cluster's ~/.ray/auth_token to {default_token_path()}"
        )
    if not _accepts(address, token):
        raise ClusterError(
            f"the Ray cluster at {address} refuses the token of {token.origin}: it was started "
            f"with another one ({TOKEN}, {TOKEN_PATH}, ~/.ray/auth_token)"
        )


def _check_private(path: Path, found: os.stat_result) -> None:
    """Raises ClusterError if others can read our file; as ssh does, lets a file of others pass."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and mode & 0o077:
        raise ClusterError(
            f"others can read Ray's token in {path} (mode {mode:03o}; expected 600): run "
            f"`chmod 600 {path}`, and make a new token if it may have been read ({TOKEN_PATH})"
        )


def _accepts(address: str, token: Token | None) -> bool:
    """Whether the Ray cluster answers a request with this token, or without one."""
    import grpc

    metadata = () if token is None else (("authorization", f"Bearer {token.text}"),)
    with _channel(address) as channel:
        try:
            channel.unary_unary(REQUEST)(b"", timeout=PROBE_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return False
            with_tls = "with TLS" if _is_tls_on() else "without TLS"
            raise ClusterError(
                f"what answers at {address} is no Ray cluster {with_tls}: {error.details()} "
                f"(--ray-address, {TLS})"
            ) from None
    return True


def _channel(address: str) -> "grpc.Channel":
    import grpc

    options = (("grpc.enable_http_proxy", 0),)  # as Ray
    if not _is_tls_on():
        return grpc.insecure_channel(address, options)
    try:
        ca, key, certificate = (Path(os.environ.get(name, "")).read_bytes() for name in TLS_FILES)
    except OSError as error:
        raise ClusterError(
            f"cannot read Ray's certificates: {error} ({', '.join(TLS_FILES)}, {TLS}=1)"
        ) from None
    return grpc.secure_channel(
        address, grpc.ssl_channel_credentials(ca, key, certificate), options
    )


def _is_tls_on() -> bool:
    return os.environ.get(TLS, "").lower() in TRUE
