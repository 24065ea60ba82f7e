"""Everything Ray of serving: replicas of a model, what is known of it, its replacement.

Ray Serve starts replicas, starts those anew that die, adds and removes some by load, and sends
each batch to the one with the least to do. Its HTTP proxy is off.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.errors import RunError
from hpo.serving.batching import BATCHES_OF_A_REPLICA, Send
from hpo.serving.runner import Answer, Question, Refusal, Runner
from hpo.serving.settings import Batching, Limits, Replicas, choose_batching
from sgformer.errors import InputError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

# OpenCV refuses larger images, whatever PIL found in the header. It reads the variable once.
OPENCV_PIXELS: Final = "OPENCV_IO_MAX_IMAGE_PIXELS"
# Ray Serve's configurations are made by registering modules with the pickler, which two threads
# must not do at the same time. Source: Ray 2.60, ray/serve/config.py.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class ModelFacts:
    """What a model's file tells, and the batches that suit it, if they were measured."""

    num_classes: int
    batching: Batching | None


class Replica:
    """A process that answers batches of one model.

    A file that cannot be loaded is told by `facts`; Ray Serve would try again and again.
    """

    def __init__(self, model: Path, num_threads: int, most_pixels: int) -> None:
        _bind_to_loopback()
        os.environ[OPENCV_PIXELS] = str(most_pixels)
        self._runner: Runner | InputError
        try:
            self._runner = Runner(model, num_threads, most_pixels)
        except InputError as error:
            self._runner = error

    def facts(self, measures: bool) -> ModelFacts | InputError:
        """What is known of the model, or why it cannot be loaded."""
        if isinstance(self._runner, InputError):
            return self._runner
        seconds = self._runner.seconds_of_batches() if measures else None
        return ModelFacts(self._runner.num_classes, choose_batching(seconds) if seconds else None)

    def classify(self, questions: Sequence[Question]) -> list[Answer | Refusal]:
        """The answers in order."""
        assert isinstance(self._runner, Runner)
        return self._runner.classify(questions)


def _bind_to_loopback() -> None:
    """Makes Ray Serve open this replica's gRPC port at 127.0.0.1.

    It is opened after the replica is made, at all addresses, and nobody here uses it.
    """
    from ray.serve._private import replica

    def add_port(server: Any, address: str) -> int:
        return int(server.add_insecure_port("127.0.0.1:0"))

    if not hasattr(replica, "add_port_to_grpc_server"):
        raise RuntimeError("this Ray Serve opens its port in another way, at all addresses")
    replica.add_port_to_grpc_server = add_port


def start_serve() -> None:
    """Starts Ray Serve's controller on the connected Ray, without a proxy."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config=_quiet())


def _quiet() -> dict[str, Any]:
    return {"log_level": "ERROR", "enable_access_log": False}


@dataclass(frozen=True)
class Deployment:
    """The replicas of one file: an application of Ray Serve."""

    app: str
    handle: "DeploymentHandle[Any]"
    facts: ModelFacts

    @property
    def send(self) -> Send:
        """Gives the answers to a batch."""

        async def send(questions: list[Question]) -> Sequence[Answer | Refusal]:
            results: Sequence[Answer | Refusal] = await self.handle.classify.remote(questions)
            return results

        return send

    def num_replicas(self) -> int:
        """Replicas that run."""
        from ray import serve

        with _one_at_a_time:
            app = serve.status().applications.get(self.app)
        states = [one.replica_states for one in app.deployments.values()] if app else []
        return sum(count for state in states for name, count in state.items() if name == "RUNNING")

    def remove(self) -> None:
        """Lets the replicas end when they have answered what they were sent."""
        from ray import serve

        with _one_at_a_time:
            serve.delete(self.app, _blocking=False)


def deploy(
    app: str, model: Path, replicas: Replicas, limits: Limits, *, measures: bool
) -> Deployment:
    """Starts the replicas of a file, and waits until they run.

    Raises:
        InputError: The file is not an exported model.
        RunError: They do not start.
    """
    from ray import serve

    with _one_at_a_time:
        try:
            bound = _deployment(replicas, limits).bind(model, replicas.threads, limits.pixels)
            handle = serve.run(bound, name=app, route_prefix=None)
            facts = handle.facts.remote(measures).result()
        except Exception as error:  # Ray raises whatever broke in its processes
            serve.delete(app, _blocking=False)
            raise RunError(
                f"the replicas of {model} do not start: {str(error).strip().splitlines()[0]}"
            ) from error
        if isinstance(facts, InputError):
            serve.delete(app, _blocking=False)
            raise facts
    return Deployment(app, handle, facts)


def _deployment(replicas: Replicas, limits: Limits) -> Any:
    from ray import serve

    return serve.deployment(
        Replica,
        name="model",
        max_ongoing_requests=BATCHES_OF_A_REPLICA,
        graceful_shutdown_timeout_s=limits.seconds,
        ray_actor_options={"num_cpus": 0},  # one machine, and the threads are bounded
        logging_config=_quiet(),
        **_scaling(replicas),
    )


def _scaling(replicas: Replicas) -> dict[str, Any]:
    if replicas.most == replicas.fewest:
        return {"num_replicas": replicas.fewest}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.fewest,
            "max_replicas": replicas.most,
            "target_ongoing_requests": 1,
        }
    }
