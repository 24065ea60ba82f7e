"""A head for more classes: it keeps the rows of the old ones, and new ones follow."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sgformer.errors import CheckpointError, listed


def check_extends(old: Sequence[str] | None, classes: Sequence[str], source: str) -> None:
    """Raises CheckpointError unless the classes are the old ones, in their order, and then new.

    Args:
        old: The classes of the model that is extended; None: its file does not say.
        classes: The classes of the images.
        source: The model that is extended, for the message.
    """
    if not old:
        raise CheckpointError(
            f"{source} does not say which classes it knows; extend a model that a run delivered "
            "(runs/x/best)"
        )
    if tuple(classes[: len(old)]) == tuple(old):
        if len(classes) > len(old):
            return
        raise CheckpointError(f"the images have no class that {source} lacks: nothing to extend")
    kept = "an extension keeps all classes under their names and in their order, new ones follow"
    gone, new = [c for c in old if c not in set(classes)], [c for c in classes if c not in old]
    if gone:
        raise CheckpointError(
            f"{kept}: the images lack {listed(gone)} of {source}, and have {listed(new)} beside "
            "its other classes; to remove or rename a class, train a model anew with `search`, or "
            "rename it where the model's answers are used"
        )
    place, (was, now) = next(
        (i, pair) for i, pair in enumerate(zip(old, classes, strict=False)) if pair[0] != pair[1]
    )
    raise CheckpointError(
        f"{kept}: output {place} of {source} is {was!r}, and class {place} of the images is "
        f"{now!r}; the order is that of the file of classes beside the manifest, which `extend` "
        "writes"
    )


def widened(old: Tensor, new: Tensor) -> Tensor:
    """A head's tensor with the old rows, and beyond them those of the newly initialised one.

    Args:
        old: The old head's weight (old classes, features), or bias (old classes,).
        new: That of a head for more classes; on the meta device only its shape counts.
    """
    rest = new.detach()[len(old) :].clone()
    if rest.is_meta:
        rest = torch.zeros(rest.shape, dtype=old.dtype)
    return torch.cat([old.to(rest.dtype), rest.cpu()])
