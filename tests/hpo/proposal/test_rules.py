"""Tests of the rules of docs/init.md."""

import dataclasses
from typing import Any

import pytest
from proposals import AT_HAND, CPUS, GPUS, OUT_OF_REACH, made_up

from hpo.proposal.machine import Machine, Weights
from hpo.proposal.rules import Facts, candidates, propose

GPU_OF_8_GB = dataclasses.replace(GPUS, gpus=1, gpu_bytes=8 * 10**9)


def why(facts: Facts, *path: str) -> str:
    return next(one.why for one in propose(facts).choices if one.path == path)


@pytest.mark.parametrize(
    ("facts", "recipe", "reason"),
    [
        (made_up(340), "fine_tune", "340 images to train, 34 a class: few, so pretrained"),
        (made_up(199_999), "fine_tune", "few"),
        (made_up(200_000), "core", "many, so SG-Former is trained from scratch"),
        (made_up(1_300_000, classes=10_000), "core", "130 a class: many"),
        (made_up(side=28), "small", "sides of 28 pixels are too small for pretrained weights"),
        (made_up(50_000, side=32), "core", "sides of 32 pixels are too small"),
        (made_up(weights=OUT_OF_REACH), "small", "no pretrained weights are at hand"),
        (made_up(20_000, weights=OUT_OF_REACH), "core", "no pretrained weights are at hand"),
    ],
)
def test_images_and_weights_decide_what_a_training_starts_from(
    facts: Facts, recipe: str, reason: str
) -> None:
    proposal = propose(facts)
    assert proposal.recipe == recipe
    assert reason in proposal.why


@pytest.mark.parametrize(
    ("side", "weights", "expected"),
    [
        (8, AT_HAND, 32), (28, AT_HAND, 32), (70, AT_HAND, 64), (96, AT_HAND, 96),
        (200, AT_HAND, 192), (3000, AT_HAND, 224), (3000, OUT_OF_REACH, 128),
    ],
)  # fmt: skip
def test_the_image_size_follows_the_median_side(
    side: int, weights: Weights, expected: int
) -> None:
    facts = made_up(side=side, weights=weights)
    assert propose(facts).chosen("train", "data", "image_size") == expected
    assert f"{side} pixels in the median" in why(facts, "train", "data", "image_size")


@pytest.mark.parametrize(
    ("num_train", "num_val", "expected"),
    [(800, 200, 0.2), (40_000, 10_000, 0.1), (1_000_000, 250_000, 0.05)],
)
def test_the_more_images_the_smaller_the_share_that_becomes_val(
    num_train: int, num_val: int, expected: float
) -> None:
    facts = made_up(num_train, num_val=num_val, val_is_of_train=True)
    assert propose(facts).chosen("train", "data", "val_fraction") == expected
    own = made_up(num_train, num_val=num_val)
    assert propose(own).chosen("train", "data", "val_fraction") is None


@pytest.mark.parametrize(
    ("num_train", "batch", "epochs"),
    [(60, 8, 60), (340, 32, 60), (1000, 64, 60), (4000, 64, 30), (100_000, 64, 10)],
)
def test_few_images_take_small_batches_and_many_epochs(
    num_train: int, batch: int, epochs: int
) -> None:
    proposal = propose(made_up(num_train))
    assert proposal.chosen("train", "optimizer", "batch_size") == batch
    assert proposal.chosen("train", "max_epochs") == epochs


@pytest.mark.parametrize(
    ("machine", "batch", "micro", "sizes"),
    [
        (GPUS, 128, None, range(6)),  # b5 keeps 448 MB of an image
        (dataclasses.replace(GPUS, gpu_bytes=160 * 10**9), 256, None, range(6)),
        (dataclasses.replace(GPUS, gpu_bytes=24 * 10**9), 64, None, range(4)),
        (GPU_OF_8_GB, 64, None, range(1)),
        (dataclasses.replace(GPUS, gpu_bytes=2 * 10**9), 64, 16, range(1)),
    ],
)
def test_memory_of_a_gpu_decides_sizes_and_batch(
    machine: Machine, batch: int, micro: int | None, sizes: range
) -> None:
    proposal = propose(made_up(300_000, machine=machine))
    assert proposal.chosen("train", "optimizer", "batch_size") == batch
    assert proposal.chosen("train", "optimizer", "micro_batch_size") == micro
    searched: dict[str, Any] = proposal.chosen("space", "model.name")
    assert searched["choices"] == [f"sg_former_b{i}" for i in sizes]


def test_a_batch_that_does_not_fit_goes_through_the_model_in_parts() -> None:
    small = dataclasses.replace(CPUS, memory_bytes=4 * 10**9)
    facts = made_up(machine=small)
    assert propose(facts).chosen("train", "optimizer", "micro_batch_size") == 8
    told = "convnext_atto.d2_in1k takes 32 MB an image; 0.5 GB of memory for each of 4 trials"
    assert why(facts, "train", "optimizer", "micro_batch_size") == told
    assert propose(made_up()).chosen("train", "optimizer", "micro_batch_size") is None


def test_many_images_without_a_gpu_get_small_models() -> None:
    proposal = propose(made_up(300_000))
    assert proposal.chosen("train", "model", "name") == "sg_former_nano"
    assert "sg_former_b1" not in proposal.chosen("space", "model.name")["choices"]


def test_many_tiny_images_get_mild_augmentation() -> None:
    assert propose(made_up(50_000, side=32)).chosen("train", "augmentation", "policy") == "mild"
    assert propose(made_up(300_000)).chosen("train", "augmentation", "policy") is None


@pytest.mark.parametrize("smallest", [50, 51])
def test_from_ten_to_one_on_rare_classes_weigh_more(smallest: int) -> None:
    facts = made_up(largest=500, smallest=smallest)
    proposal, is_imbalanced = propose(facts), smallest == 50
    assert proposal.chosen("train", "class_balance") == ("loss" if is_imbalanced else None)
    assert (proposal.chosen("space", "class_balance") is not None) is is_imbalanced
    objective = proposal.chosen("study", "objectives")
    assert objective == ([["val_macro_f1", "maximize"]] if is_imbalanced else None)
    if is_imbalanced:
        told = why(facts, "train", "class_balance")
        assert "'rose' has 10 images for one of 'tulip\\n#1' (500 and 50)" in told


@pytest.mark.parametrize(("cpus", "slots", "each"), [(1, 1, 1), (2, 2, 1), (8, 4, 2), (64, 4, 16)])
def test_cpus_are_shared_by_four_trials_at_most(cpus: int, slots: int, each: int) -> None:
    proposal = propose(made_up(machine=dataclasses.replace(CPUS, cpus=cpus)))
    assert proposal.chosen("resources", "max_concurrent_trials") == slots
    assert proposal.chosen("resources", "cpus_per_trial") == each
    assert proposal.chosen("resources", "gpus_per_trial") == 0


def test_with_gpus_a_trial_gets_the_share_that_is_measured() -> None:
    facts = made_up(machine=GPUS)
    assert propose(facts).chosen("resources", "gpus_per_trial") == "auto"
    assert propose(facts).chosen("resources", "cpus_per_trial") is None
    assert "2 x NVIDIA H100, 80 GB" in why(facts, "resources", "gpus_per_trial")


def test_the_first_weights_that_can_be_had_are_taken() -> None:
    facts = made_up(machine=GPUS)
    of_hub = Weights("convnext_nano.in12k_ft_in1k", "on the hub, to be downloaded once")
    weights = (Weights("sg_former_s", "out of reach", "get the file"), of_hub, AT_HAND)
    facts = dataclasses.replace(facts, weights=weights)
    assert propose(facts).chosen("train", "model", "name") == of_hub.model
    assert why(facts, "train", "model", "name") == f"its weights are {of_hub.whereabouts}"


def test_a_machine_without_a_gpu_prefers_the_smallest_model() -> None:
    assert candidates(CPUS)[0] == "convnext_atto.d2_in1k"
    assert candidates(GPUS)[0] == "sg_former_s"


def test_every_choice_but_the_recipes_own_says_why() -> None:
    for facts in (made_up(340), made_up(side=28), made_up(300_000, machine=GPUS)):
        assert all(choice.why for choice in propose(facts).choices)
