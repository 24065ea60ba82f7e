"""Loads weights into a model: fits names, sizes and head, and reports what was loaded."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from sgformer.config import ModelConfig
from sgformer.errors import CheckpointError
from sgformer.model.fusion import NAME as FUSION
from sgformer.model.weight_files import StoredWeights, Weights
from sgformer.model.weight_sources import load_weights
from sgformer.model.widening import check_extends, widened

MOST_NAMES: Final = 5  # how many names of tensors a message lists at most
# Functions of timm's modules that give a file's tensors a model's names and sizes.
FILTERS: Final = ("checkpoint_filter_fn", "_filter_fn")
# A batch counter of BatchNorm, which files of old versions lack and which changes no output.
COUNTER: Final = "num_batches_tracked"
# Parts of names that tell tensors of one shape apart in any naming.
ROLES: Final = ({"q", "k", "v"}, {"norm1", "norm2"}, {"fc1", "fc2"})
SYNONYMS: Final = {"query": "q", "key": "k", "value": "v"}


@dataclass(frozen=True)
class LoadReport:
    """What was loaded into a model.

    Attributes:
        source: Where the weights come from, in words.
        num_loaded: Number of the model's tensors that were loaded.
        num_tensors: Number of the model's tensors.
        new: Names of the model's tensors that stay newly initialised: those of the head.
        unexpected: Names in the file that the model does not have.
        in_order: Whether the file's tensors have other names, and were taken in their order.
        num_rows: Classes whose rows of the head were kept beside new ones; 0: the head was not
            widened.
    """

    source: str
    num_loaded: int
    num_tensors: int
    new: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    in_order: bool = False
    num_rows: int = 0

    def __str__(self) -> str:
        text = f"{self.num_loaded} of {self.num_tensors} tensors of {self.source}"
        text += (
            ", taken in their order: make sure that the file is of this model"
            if self.in_order
            else ""
        )
        text += f"; new: {_some(self.new)}" if self.new else ""
        text += f"; the head keeps the rows of {self.num_rows} classes" if self.num_rows else ""
        return text + (f"; unused: {_some(self.unexpected)}" if self.unexpected else "")


def start_from(
    model: nn.Module,
    config: ModelConfig,
    stored: StoredWeights | None,
    classes: Sequence[str],
    *,
    extends: bool = False,
) -> LoadReport | None:
    """Loads the weights that a training begins with; returns None if the config asks for none.

    Args:
        model: The newly initialised model.
        config: Names the model, and the source of its weights.
        stored: A copy of the weights; None: they are read from their source.
        classes: The classes of the model's outputs, in order.
        extends: Whether the model has the weights' classes and further ones.

    Raises:
        CheckpointError: The weights cannot be read, or are of another model.
    """
    weights = load_weights(config) if stored is None else stored.read()
    if weights is None:
        return None
    return load_into(model, config.name, weights, classes, extends=extends)


def load_into(
    model: nn.Module,
    name: str,
    weights: Weights,
    classes: Sequence[str] | None = None,
    *,
    extends: bool = False,
) -> LoadReport:
    """Loads weights into a model of any image size and number of classes; see `fitted`."""
    tensors, report = fitted(model, name, weights, classes, extends=extends)
    model.load_state_dict(tensors, strict=False)
    return report


def fitted(
    model: nn.Module,
    name: str,
    weights: Weights,
    classes: Sequence[str] | None = None,
    *,
    extends: bool = False,
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors to load into a model, and a report; the model may lie on the meta device.

    Tables of positions are resampled to the model's image size. The head is left out, and so
    stays newly initialised, if it has another size, or if the weights are known to be of other
    classes.

    Args:
        model: The model.
        name: The name that timm has built it by.
        weights: The weights.
        classes: The classes of the model's outputs, in order; None: unknown.
        extends: Whether the model has the weights' classes and further ones, so that the head
            keeps the rows of the old classes.

    Raises:
        CheckpointError: The weights are of another architecture, or, with `extends`, of classes
            that are not the first ones: a tensor outside the head is
            missing or has another shape; or a tensor is not of finite floating-point numbers.
    """
    expected = dict(model.state_dict())
    heads = _heads(model)
    backbone = [n for n in expected if not n.startswith(heads) and not n.endswith(COUNTER)]
    tensors, in_order = weights.tensors, False
    wrong = _misfits(backbone, tensors, expected)
    if wrong:
        tensors = _filtered(model, name, weights)
        wrong = _misfits(backbone, tensors, expected)
    if wrong and _are_in_order(model, weights):
        tensors, wrong, in_order = renamed(model, weights).tensors, [], True
    if wrong:
        raise CheckpointError(_refusal(name, weights, wrong, len(backbone), tensors, expected))
    rows = 0
    if extends:
        check_extends(weights.classes, classes or (), weights.source)
        rows = len(weights.classes or ())
        wide = {n: widened(tensors[n], expected[n]) for n in expected if n.startswith(heads)}
        weights, tensors = replace(weights, classes=None), {**tensors, **wide}
    left_out = _heads_left_out(heads, tensors, expected)
    if None not in (classes, weights.classes) and tuple(classes or ()) != weights.classes:
        left_out = heads
    loaded = {
        n: tensors[n]
        for n in expected
        if _fits(n, tensors, expected) and not n.startswith(left_out)
    }
    _check_numbers(loaded, expected, weights.source)
    new = tuple(n for n in expected if n not in loaded and not n.endswith(COUNTER))
    unexpected = tuple(n for n in tensors if n not in expected)
    return loaded, LoadReport(
        weights.source, len(loaded), len(expected), new, unexpected, in_order, rows
    )


def _heads_left_out(
    heads: tuple[str, ...], tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """The heads that stay newly initialised: all classifiers unless each fits; a fusion alike."""
    misfits = [
        head
        for head in heads
        if not all(_fits(n, tensors, expected) for n in expected if n.startswith(head))
    ]
    fusion = tuple(head for head in misfits if head == f"{FUSION}.")
    if len(misfits) == len(fusion):
        return fusion
    return tuple(head for head in heads if head in fusion or head != f"{FUSION}.")


def _check_numbers(
    loaded: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> None:
    """Raises CheckpointError if a tensor is of another kind of number, or not finite."""
    for name, tensor in loaded.items():
        kind = expected[name].dtype
        if name.endswith(COUNTER) or not kind.is_floating_point:
            continue
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{source}: {name} is {_dtype(tensor.dtype)} there, and {_dtype(kind)} in the "
                "model; save the weights as floating-point numbers"
            )
        if not torch.isfinite(tensor.to(kind)).all():
            raise CheckpointError(
                f"{source}: {name} has values that are no finite {_dtype(kind)} (NaN or "
                "infinite), as after a training that diverged; take those of an earlier epoch"
            )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def renamed(model: nn.Module, weights: Weights) -> Weights:
    """The weights of a report that is `in_order`, under the model's own names."""
    tensors = dict(zip(model.state_dict(), weights.tensors.values(), strict=True))
    return replace(weights, tensors=tensors)


def _are_in_order(model: nn.Module, weights: Weights) -> bool:
    """Whether these are the model's tensors under other names: same kinds and shapes, in order."""
    expected, heads = model.state_dict(), _heads(model)
    return (
        weights.is_ordered
        and len(expected) == len(weights.tensors)
        and all(
            theirs.rpartition(".")[2] == ours.rpartition(".")[2]
            and (tensor.shape == expected[ours].shape or ours.startswith(heads))
            and _may_be_called(ours, theirs)
            for ours, (theirs, tensor) in zip(expected, weights.tensors.items(), strict=True)
        )
    )


def _may_be_called(ours: str, theirs: str) -> bool:
    """Whether no part of the two names says that the tensors play different roles."""
    found = (set(re.split(r"[._]", name)) for name in (ours, theirs))
    here, there = ({SYNONYMS.get(part, part) for part in parts} for parts in found)
    return all(
        here & roles == there & roles or not (here & roles and there & roles) for roles in ROLES
    )


def _filtered(model: nn.Module, name: str, weights: Weights) -> dict[str, Tensor]:
    """The tensors as timm's own function for the model changes them; unchanged if it cannot."""
    module = sys.modules[model_entrypoint(name.partition(".")[0]).__module__]
    change = next((getattr(module, f) for f in FILTERS if hasattr(module, f)), None)
    if change is None:
        return weights.tensors
    try:
        changed: dict[str, Any] = change(dict(weights.tensors), model)
    except Exception:  # noqa: BLE001  the function meets tensors of other architectures here
        return weights.tensors
    return {n: t for n, t in changed.items() if isinstance(t, Tensor)}


def _heads(model: nn.Module) -> tuple[str, ...]:
    """The beginnings of the names of the head's tensors, and of those of a fusion before it."""
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{name}." for name in (*names, FUSION))


def _misfits(
    names: Sequence[str], tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[str]:
    return [n for n in names if not _fits(n, tensors, expected)]


def _fits(name: str, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return name in tensors and tensors[name].shape == expected[name].shape


def _refusal(
    name: str,
    weights: Weights,
    wrong: Sequence[str],
    num_backbone: int,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
) -> str:
    num_right = num_backbone - len(wrong)
    mismatches = "; ".join(
        f"{n} is {_shape(tensors[n])} there and {_shape(expected[n])} in the model"
        if n in tensors
        else f"{n} {_shape(expected[n])} is not there"
        for n in wrong[:3]
    )
    unknown = _some([n for n in tensors if n not in expected])
    size = "" if num_right < num_backbone / 2 else ", or another image size"
    return (
        f"{weights.source} does not fit {name}, these are weights of another model{size}: "
        f"{num_right} of the {num_backbone} tensors before the head fit; {mismatches}"
        + (f"; the model has no {unknown}" if unknown else "")
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
