"""Makes a soup or an ensemble of finalists' models, where trainings run."""

import contextlib
import math
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from hpo.delivery.deliver import images_for, load_model, trained_images_of
from hpo.delivery.predicted import EVAL_BATCH_SIZE, predicted
from hpo.execution.own_folder import own_folder
from hpo.execution.training import BEST
from hpo.run_store import RunStore
from hpo.selection.greedy import Choice, Members, choose_members
from sgformer.config import Metric, TrainConfig
from sgformer.data_config import DataConfig
from sgformer.disk import noticing_full_disk

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData
    from sgformer.training.outcomes import Outcomes

NAME: Final = "combined"  # of the folder beside those of the trainings
NUM_STATISTICS_IMAGES: Final = 4096  # of train, for BatchNorm: a mean and a variance a channel
CHUNK_BYTES: Final = 2**26


@dataclass(frozen=True)
class Combining:
    """What is combined, and how; it is sent to the process that does it.

    Attributes:
        kind: What is made.
        metric: What val chooses and judges by.
        most: The most members.
        folders: The folders of the trainings that may be members, the winner's first.
        target: Gets best.safetensors, if the combination is worth it.
        images: Identifies the images of the search; None: any images are accepted.
        places: Where the images and their cache are.
        num_gpus: GPUs for the process.
        store: Where the checkpoints are kept in place of the folders; None: in these.
    """

    kind: Literal["soup", "ensemble"]
    metric: Metric
    most: int
    folders: tuple[Path, ...]
    target: Path
    images: "ImagesId | None"
    places: DataConfig
    num_gpus: float = 0.0
    store: RunStore | None = None


@dataclass(frozen=True)
class Combined:
    """How far a combination has come.

    Attributes:
        num_done: Combinations evaluated so far.
        choice: At the end, the members and their gain.
    """

    num_done: int
    choice: Choice | None = None


def combine(how: Combining) -> Generator[Combined]:
    """Chooses the members, and writes the combination if it is worth it.

    Raises:
        CheckpointError: A training's best weights cannot be read.
        DataError: The images cannot be read, or are not those of the search.
        DiskFullError: The disk has no room.
        StoreError: The store of the checkpoints is away.
    """
    from sgformer.training.checkpoint import save_checkpoint
    from sgformer.training.device import limit_memory

    limit_memory(how.num_gpus)
    with contextlib.ExitStack() as held:
        folders = [_opened(how, folder, held) for folder in how.folders]
        paths = tuple(folder / BEST for folder in folders)
        models = _Models.of(how, paths)
        if how.kind == "ensemble":
            work = Path(held.enter_context(_work_folder(folders[0])))
            kind: _Soups | _Ensembles = _Ensembles(models, work)
        else:
            kind = _Soups(models)
        most = len(paths) if how.kind == "soup" else how.most
        told = choose_members(len(paths), _known(kind.outcomes), how.metric, most)
        choice = yield from _counted(told)
        if choice.is_worth_it:
            place = how.target
            if how.store is not None:
                place = Path(held.enter_context(_work_folder(folders[0])))
            save_checkpoint(place / BEST, *kind.checkpoint(choice.members))
            _publish(how, place)
        yield Combined(0, choice)


def _counted(told: Generator[None, None, Choice]) -> Generator[Combined, None, Choice]:
    """Yields how many combinations were evaluated; returns the choice."""
    num_done = 0
    while True:
        try:
            next(told)
        except StopIteration as end:
            choice: Choice = end.value
            return choice
        num_done += 1
        yield Combined(num_done)


def _opened(how: Combining, folder: Path, held: contextlib.ExitStack) -> Path:
    """The folder of a training's best weights on this machine."""
    if how.store is None:
        return folder
    name = "/".join(folder.parts[-2:])
    return held.enter_context(own_folder(how.store, name, trains=False, names=(BEST,))).path


def _publish(how: Combining, place: Path) -> None:
    if how.store is not None:
        stored = how.store.open("/".join(how.target.parts[-2:]))
        stored.take()
        stored.save(place)


@contextlib.contextmanager
def _work_folder(within: Path) -> Iterator[str]:
    """A folder for the block, which a killed process leaves within another one's training."""
    with (
        noticing_full_disk(within),
        tempfile.TemporaryDirectory(prefix=".combining-", dir=within) as folder,
    ):
        yield folder


def _known(outcomes_of: "Callable[[Members], Outcomes]") -> "Callable[[Members], Outcomes]":
    """The function, which evaluates each set of members once."""
    known: dict[Members, Outcomes] = {}

    def outcomes(members: Members) -> "Outcomes":
        key = tuple(sorted(members))
        if key not in known:
            known[key] = outcomes_of(members)
        return known[key]

    return outcomes


@dataclass(frozen=True)
class _Models:
    """The candidates, and the val images as the winner sees them."""

    paths: tuple[Path, ...]
    config: TrainConfig
    data: "ImageData"
    device: "torch.device"

    @classmethod
    def of(cls, how: Combining, paths: tuple[Path, ...]) -> "_Models":
        from sgformer.training.device import choose_device

        config, _, _ = load_model(paths[0], how.places)
        data = images_for(config, trained_images_of(paths[0]), how.images)
        anywhere = "cpu" if config.device == "cpu" else "auto"
        device = choose_device(config.model_copy(update={"device": anywhere}))
        return cls(paths, config, data, device)

    def logits(self, model: "nn.Module") -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Logits and labels of val's batches, in float32, whatever the training's precision."""
        from sgformer.optimization.numerics import exact_float32

        model.to(self.device).eval()
        with exact_float32():
            yield from predicted(self.config, model, self.data, "val", self.device)


@dataclass(frozen=True)
class _Soups:
    """Means of weights."""

    models: _Models

    def outcomes(self, members: Members) -> "Outcomes":
        from sgformer.training.outcomes import Outcomes

        return Outcomes.of(self.models.logits(self._model(members)))

    def checkpoint(self, members: Members) -> tuple[Any, Any]:
        """Tensors and metadata of the soup."""
        _, metadata = self._mean(members)
        return self._model(members).state_dict(), metadata

    def _mean(self, members: Members) -> tuple[Any, Any]:
        from sgformer.training.trained_model import soup_checkpoint

        return soup_checkpoint([self.models.paths[i] for i in members])

    def _model(self, members: Members) -> "nn.Module":
        from sgformer.model.build import create_model
        from sgformer.optimization.batch_norm import recompute_statistics

        it = self.models
        model = create_model(it.config, len(it.data.classes))
        model.load_state_dict(self._mean(members)[0])
        model.to(it.device)
        if len(members) > 1:
            recompute_statistics(model, self._train_batches())
        return model

    def _train_batches(self) -> "Iterator[torch.Tensor]":
        """Train images, as evaluation sees them, for BatchNorm's statistics."""
        from sgformer.data.fused_input import images_of
        from sgformer.data.model_input import eval_batches
        from sgformer.export.proof import spread_over_classes

        it = self.models
        samples = spread_over_classes(it.data.samples("train"), NUM_STATISTICS_IMAGES)
        for images, _ in eval_batches(
            it.data, samples, it.config.data, EVAL_BATCH_SIZE, it.device
        ):
            yield images_of(images)


@dataclass(frozen=True)
class _Ensembles:
    """Means of probabilities; each candidate sees val once, and a file keeps what it said.

    The files have float16 logarithms: (N, classes) x 2 bytes a candidate, which are read in parts.
    """

    models: _Models
    work: Path

    def outcomes(self, members: Members) -> "Outcomes":
        import torch

        from sgformer.model.ensemble import mean_of_log_probabilities
        from sgformer.training.outcomes import Outcomes

        labels = torch.from_numpy(self.models.data.samples("val")[:, 1].copy())
        parts = zip(*(self._answers(i) for i in members), strict=True)
        logits = (mean_of_log_probabilities(torch.stack(each)) for each in parts)
        return Outcomes.of(zip(logits, labels.split(self._rows), strict=True))

    def checkpoint(self, members: Members) -> tuple[Any, Any]:
        """Tensors and metadata of the ensemble."""
        from sgformer.training.trained_model import ensemble_checkpoint

        return ensemble_checkpoint([self.models.paths[i] for i in members])

    @cached_property
    def _rows(self) -> int:
        """Images of a part."""
        return max(1, math.floor(CHUNK_BYTES / (4 * len(self.models.data.classes))))

    def _answers(self, i: int) -> "Iterator[torch.Tensor]":
        """A candidate's log-probabilities on val, part by part."""
        import numpy as np
        import torch

        path = self.work / f"{i}.f16"
        if not path.exists():
            self._ask(i, path)
        num_classes = len(self.models.data.classes)
        with path.open("rb") as file:
            while content := file.read(2 * self._rows * num_classes):
                part = np.frombuffer(content, np.float16).reshape(-1, num_classes)
                yield torch.from_numpy(part.astype(np.float32))

    def _ask(self, i: int, path: Path) -> None:
        import numpy as np

        from sgformer.model.ensemble import Ensemble
        from sgformer.training.trained_model import member_of

        look = self.models.config.data.preprocessing
        seeing = Ensemble([member_of(self.models.paths[i])], look)
        with path.open("wb") as file:
            for logits, _ in self.models.logits(seeing):
                file.write(logits.cpu().numpy().astype(np.float16).tobytes())
