"""A served model as the application sees it: its queue, and how many requests are present."""

import asyncio
import contextlib
from collections.abc import Iterator

from hpo.serving.batching import Batcher, Result, Send
from hpo.serving.metrics import Metrics
from hpo.serving.runner import Question
from hpo.serving.settings import Batching, Limits, Replicas, most_requests


class ServedModel:
    """A model that answers requests.

    Attributes:
        name: The name by which clients choose the model.
        num_classes: The number of its classes.
        batching: How its images become batches.
        most_requests: The most requests that may be present.
        num_present: Requests that are read, wait, or are computed.
        send: Gives the answers to a batch; a reload puts another one in its place.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        batching: Batching,
        replicas: Replicas,
        limits: Limits,
        metrics: Metrics,
        send: Send,
    ) -> None:
        self.name, self.num_classes, self.batching, self.send = name, num_classes, batching, send
        self.most_requests = most_requests(limits, batching, replicas)
        self.num_present = 0
        self._seconds = limits.seconds
        count = metrics.batch_sizes.labels(name).observe
        self._batcher = Batcher(
            batching, lambda batch: self.send(batch), limits.seconds, count, self._expects_more
        )

    @property
    def is_full(self) -> bool:
        """Whether no further request may come in."""
        return self.num_present >= self.most_requests

    @property
    def num_waiting(self) -> int:
        """Images that are in no batch yet."""
        return self._batcher.num_waiting

    @property
    def num_replicas(self) -> int:
        """Replicas that run, as far as is known."""
        return self._batcher.num_replicas

    @num_replicas.setter
    def num_replicas(self, num: int) -> None:
        self._batcher.num_replicas = num

    def _expects_more(self) -> bool:
        """Whether some requests that are present do not wait yet: they are read, or computed."""
        return self.num_present > self.num_waiting

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a request as present for the block."""
        self.num_present += 1
        try:
            yield
        finally:
            self.num_present -= 1

    async def classify(self, question: Question) -> Result:
        """The answer to a question.

        Raises:
            TimeoutError: There was none in time.
            ReplicaError: The replica that computed it failed.
        """
        async with asyncio.timeout(self._seconds):
            return await self._batcher.classify(question)
