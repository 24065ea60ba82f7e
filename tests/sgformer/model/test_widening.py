import re

import pytest
import timm
import torch

import sgformer.model
from sgformer.errors import CheckpointError
from sgformer.model.weight_files import Weights
from sgformer.model.weights import fitted, load_into
from sgformer.model.widening import check_extends

OLD = ("a", "b", "c")


@pytest.mark.parametrize("name", ["sg_former_pico", "resnet18"])
def test_an_extended_head_keeps_the_rows_of_the_old_classes(name: str) -> None:
    assert sgformer.model
    old, new = (timm.create_model(name, num_classes=number) for number in (3, 5))
    fresh = {n: t.clone() for n, t in new.state_dict().items()}
    weights = Weights(dict(old.state_dict()), "the base", OLD)
    report = load_into(new, name, weights, (*OLD, "d", "e"), extends=True)
    assert str(report).endswith("of the base; the head keeps the rows of 3 classes")
    head = "head" if name.startswith("sg") else "fc"
    for part in (f"{head}.weight", f"{head}.bias"):
        assert torch.equal(new.state_dict()[part][:3], old.state_dict()[part])
        assert torch.equal(new.state_dict()[part][3:], fresh[part][3:])
    with torch.device("meta"):
        empty = timm.create_model(name, num_classes=5)
    tensors, _ = fitted(empty, name, weights, (*OLD, "d", "e"), extends=True)
    assert tensors[f"{head}.weight"].shape[0] == 5


@pytest.mark.parametrize(
    ("old", "classes", "problem"),
    [
        (OLD, ("a", "c", "d"), "the images lack 'b' of x, and have 'd' beside its other classes"),
        (OLD, ("b", "a", "c", "d"), "output 0 of x is 'a', and class 0 of the images is 'b'"),
        (OLD, ("a", "b", "d", "c"), "output 2 of x is 'c', and class 2 of the images is 'd'"),
        (OLD, OLD, "the images have no class that x lacks: nothing to extend"),
        (None, OLD, "x does not say which classes it knows; extend a model that a run delivered"),
    ],
)
def test_classes_that_do_not_extend_the_old_ones_are_refused(
    old: tuple[str, ...] | None, classes: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        check_extends(old, classes, "x")
