"""The address of a Ray head's dashboard, which also serves the Jobs API: checked and probed."""

import contextlib
import http.client
import json
import os
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from hpo.errors import ClusterError
from hpo.execution.cluster_access import PROBE_SECONDS, no_tokens, peer_at

ADDRESS_VARIABLE: Final = "RAY_API_SERVER_ADDRESS"
MODE_VARIABLE: Final = "RAY_AUTH_MODE"
MOST_BYTES: Final = 10_000  # of an answer; Ray's has 200
UNAUTHORIZED: Final = 401
ON_LOOPBACK: Final = (
    "a dashboard can be reached from its own machine only, unless the head was started with "
    "`ray start --head --dashboard-host=ADDRESS`; a tunnel is `ssh -L 8265:localhost:8265 HEAD`"
)


def checked_address(address: str) -> str:
    """The URL of a dashboard, without a slash at its end; raises ClusterError if it is none."""
    parts = urlsplit(address)
    with contextlib.suppress(ValueError):  # a port that is none
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port
        if is_whole and parts.path in ("", "/") and not parts.query and "@" not in address:
            return address.rstrip("/")
    shown = "one with a user or a password" if "@" in address else repr(address)
    raise ClusterError(
        f"not the address of a Ray dashboard: {shown}; expected http://HOST:PORT of a cluster's "
        f"head, such as http://10.0.0.1:8265 (--ray-address, {ADDRESS_VARIABLE})"
    )


def probe(address: str, *, insecure: bool = False) -> None:
    """Raises ClusterError, within seconds, unless a Ray dashboard answers; Ray would wait on.

    If it asks for a token, Ray is told to send the one of this machine. Ray must not have been
    imported before, because it reads the variable then. One that asks for none must be at a
    loopback address, or `insecure` be set.
    """
    is_open = False
    try:
        with urlopen(f"{address}/api/version", timeout=PROBE_SECONDS) as answer:
            is_open = is_ray = "ray_version" in json.loads(answer.read(MOST_BYTES))
    except HTTPError as error:
        is_ray = error.code == UNAUTHORIZED
        if is_ray:
            os.environ[MODE_VARIABLE] = "token"
    except OSError as error:
        reason = getattr(error, "reason", error)
        hint = f"; {ON_LOOPBACK}" if isinstance(reason, ConnectionRefusedError) else ""
        raise ClusterError(
            f"no Ray dashboard answers at {address}: {reason}{hint} (--ray-address)"
        ) from None
    except (http.client.HTTPException, ValueError, TypeError):
        is_ray = False
    if not is_ray:
        raise ClusterError(
            f"what answers at {address} is no Ray dashboard, whose port is 8265 unless "
            "`ray start --dashboard-port` says otherwise (--ray-address)"
        )
    if is_open and not insecure and not peer_at(urlsplit(address).netloc).is_loopback:
        raise no_tokens(address)
