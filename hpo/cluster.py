"""The Ray cluster: connecting to it, and what a trial takes of it."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from hpo.config import ResourcesConfig
from hpo.errors import ClusterError

PROBE_SECONDS = 4.0
# A gRPC server, such as Ray's head, answers a client's preface with a settings frame (RFC 9113).
HTTP2_SETTINGS = b"\x04"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + bytes(5)


@dataclass(frozen=True)
class TrialResources:
    """What one trial takes, and how many trials run at a time."""

    cpus: int
    gpus: float
    num_slots: int


def check_address(address: str) -> None:
    """Raises ClusterError, within seconds, unless a gRPC server answers at HOST:PORT.

    Ray itself would go on trying for minutes.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ClusterError(
            f"not a Ray address: {address!r}; expected HOST:PORT of a cluster's head, such as "
            "10.0.0.1:6379 (--ray-address)"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_SECONDS) as connection:
            connection.sendall(HTTP2_PREFACE)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error} (--ray-address)"
        ) from None
    if answer[3:4] != HTTP2_SETTINGS:
        raise ClusterError(f"what answers at {address} is no Ray cluster (--ray-address)")


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster, or to one started on this machine and stopped at the end.

    Raises:
        ClusterError: The cluster refuses.
    """
    # Read by Ray when it is imported.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(
            f"cannot use the Ray cluster at {address or 'this machine'}: {reason}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def cluster_totals() -> tuple[int, int]:
    """CPUs and GPUs of the connected cluster."""
    import ray

    totals = ray.cluster_resources()
    return int(totals.get("CPU", 0)), int(totals.get("GPU", 0))


def local_totals(config: ResourcesConfig) -> tuple[int, int]:
    """CPUs and GPUs of this machine; GPUs are counted, by torch, only if trials may take them."""
    num_cpus = len(os.sched_getaffinity(0))
    if config.gpus_per_trial == 0:
        return num_cpus, 0
    import torch

    return num_cpus, torch.cuda.device_count()


def trial_resources(config: ResourcesConfig, num_cpus: int, num_gpus: int) -> TrialResources:
    """What a trial takes of a cluster of that size.

    Raises:
        ClusterError: Not even one trial fits.
    """
    gpus = config.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if num_gpus else 0.0
    if gpus > num_gpus:
        raise ClusterError(
            f"resources.gpus_per_trial: a trial asks for {gpus:g} GPU and there are {num_gpus}; "
            "set it to 0 to train on CPUs"
        )
    cpus = config.cpus_per_trial
    if cpus is None:
        cpus = max(1, int(num_cpus / num_gpus * gpus)) if gpus else 1
    if cpus > num_cpus:
        raise ClusterError(
            f"resources.cpus_per_trial: a trial asks for {cpus} CPUs and there are {num_cpus}"
        )
    num_slots = num_cpus // cpus
    if gpus:
        num_slots = min(num_slots, int(num_gpus / gpus))
    return TrialResources(cpus, gpus, min(num_slots, config.max_concurrent_trials or num_slots))
