"""Keeps a served model up to date with its file, and knows how many replicas run."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpo.errors import RunError
from hpo.serving.deployment import Deployment, deploy
from hpo.serving.files import ModelFile, Signature
from hpo.serving.metrics import Metrics
from hpo.serving.model import ServedModel
from hpo.serving.settings import Batching, Limits, Replicas
from sgformer.errors import InputError

SECONDS_BETWEEN_LOOKS: Final = 1.0
NUM_TRIES: Final = 3


class Deployed:
    """A model on Ray Serve.

    A new file is loaded by replicas of its own, while the present ones answer. When they run, they
    get all further batches at once, and the former ones end. A file that cannot be loaded changes
    nothing.

    Args:
        file: The model's file.
        replicas: The processes of the model.
        limits: Limits of requests.
        batching: How images become batches; None: it is measured.
        metrics: Counts.
        folder: Gets copies of the file.
        tell: Is told what happens.

    Raises:
        InputError: The file is not an exported model.
        RunError: The replicas do not start.
    """

    def __init__(
        self,
        file: ModelFile,
        replicas: Replicas,
        limits: Limits,
        batching: Callable[[Batching | None], Batching],
        metrics: Metrics,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._file, self._replicas, self._limits = file, replicas, limits
        self._metrics, self._folder, self._tell = metrics, folder, tell
        self._version = 0
        self._seen = self._changing = file.signature()
        self._deployment = self._load(measures=True)
        facts = self._deployment.facts
        self.model = ServedModel(
            file.name, facts.num_classes, batching(facts.batching), replicas, limits, metrics,
            self._deployment.send,
        )  # fmt: skip
        self.model.num_replicas = replicas.fewest

    async def watch(self) -> None:
        """Looks for a new file, and at the replicas, until it is cancelled."""
        last = ""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                self.model.num_replicas = await asyncio.to_thread(self._deployment.num_replicas)
                if self._is_new(self._file.signature()):
                    await self._reload()
            except Exception as error:  # noqa: BLE001  Ray may be busy, or gone; looks go on
                self.model.num_replicas = 0
                if str(error) != last:
                    self._tell(f"{self._file.name}: cannot look after its replicas: {error}")
                last = str(error)

    def _is_new(self, signature: Signature | None) -> bool:
        """Whether there is a new file, which has not changed since the last look."""
        is_at_rest, self._changing = signature == self._changing, signature
        return signature is not None and is_at_rest and signature != self._seen

    async def _reload(self) -> None:
        self._seen = self._changing
        former = self._deployment
        try:
            deployment = await asyncio.to_thread(self._load)
        except (InputError, RunError) as error:
            self._metrics.reloads.labels(self._file.name, "refused").inc()
            self._tell(f"{self._file.name}: the former model goes on, the new one fails: {error}")
            return
        self._deployment, self.model.send = deployment, deployment.send
        self.model.num_classes = deployment.facts.num_classes
        self._metrics.reloads.labels(self._file.name, "loaded").inc()
        self._tell(f"{self._file.name}: the new model of {self._file.path} answers")
        await asyncio.to_thread(former.remove)
        shutil.rmtree(self._folder / former.app, ignore_errors=True)

    def _load(self, *, measures: bool = False) -> Deployment:
        """Starts replicas of the file as it is now; a start that Ray breaks is repeated."""
        for tries_left in reversed(range(NUM_TRIES)):
            try:
                return self._load_once(measures=measures)
            except RunError:
                if not tries_left:
                    raise
        raise AssertionError

    def _load_once(self, *, measures: bool) -> Deployment:
        self._version += 1
        app = f"{self._file.name}-{self._version}"
        copy = self._file.copy_to(self._folder / app)
        try:
            return deploy(app, copy, self._replicas, self._limits, measures=measures)
        except (InputError, RunError) as error:
            shutil.rmtree(copy.parent, ignore_errors=True)
            raise type(error)(str(error).replace(str(copy), str(self._file.path))) from None
