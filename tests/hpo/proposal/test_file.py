"""Tests of the text of a proposed search file; every one is read as a search reads it."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from proposals import CPUS, GPUS, OUT_OF_REACH, made_up

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.proposal.file import WIDTH, search_file, study_name
from hpo.proposal.machine import Weights
from hpo.proposal.rules import Choice, Facts, candidates, propose

EVERY_KIND = {
    "few": made_up(340, val_is_of_train=True),
    "few on a GPU": made_up(machine=GPUS, weights=Weights(candidates(GPUS)[1], "on the hub")),
    "released SG-Former": made_up(machine=GPUS, weights=Weights("sg_former_s", "here")),
    "few without weights": made_up(weights=OUT_OF_REACH),
    "tiny": made_up(side=8, largest=5000),
    "many tiny": made_up(50_000, side=32),
    "many": made_up(1_300_000, classes=10_000, machine=GPUS, val_is_of_train=True, smallest=1),
    "many on CPUs": made_up(300_000),
    "little memory": made_up(machine=replace(CPUS, memory_bytes=4 * 10**9)),
    "odd name": made_up(folder="/images/ä: #1\n'x'"),
}


def loaded(facts: Facts, tmp_path: Path) -> SearchConfig:
    path = tmp_path / "search.yaml"
    path.write_text(search_file(propose(facts)), encoding="utf-8")
    config, notes = load_search_config(path)
    assert notes == ()
    return config


@pytest.mark.parametrize("facts", EVERY_KIND.values(), ids=EVERY_KIND)
def test_every_proposed_file_is_one_that_a_search_takes(facts: Facts, tmp_path: Path) -> None:
    proposal, config = propose(facts), loaded(facts, tmp_path)
    assert str(config.train.data.data_dir) == facts.images.folder
    values = config.model_dump(mode="json")
    for choice in proposal.choices:
        here = values
        for key in choice.path:
            here = here[key]
        wanted = choice.value
        assert here == (wanted if not isinstance(wanted, dict) else here | wanted), choice.path


@pytest.mark.parametrize("facts", EVERY_KIND.values(), ids=EVERY_KIND)
def test_every_choice_has_its_reason_beside_it(facts: Facts) -> None:
    proposal = propose(facts)
    text = search_file(proposal)
    words = " ".join(text.replace("#", " ").split())
    for choice in proposal.choices:
        assert " ".join(choice.why.replace("#", " ").split()) in words
    comments = [line for line in text.splitlines() if "#" in line]
    assert max(map(len, comments)) <= WIDTH or facts is EVERY_KIND["odd name"]


def test_what_no_rule_chose_is_the_recipes() -> None:
    recipe = Path(__file__).parents[3] / "search_spaces" / "fine_tune.yaml"
    own, shipped = (
        yaml.safe_load(text)
        for text in (search_file(propose(made_up())), recipe.read_text(encoding="utf-8"))
    )
    assert own["space"] == shipped["space"]
    assert own["retrain"] == shipped["retrain"]
    assert own["train"]["augmentation"] == shipped["train"]["augmentation"]


def test_sections_and_settings_are_in_the_order_of_the_config() -> None:
    values = yaml.safe_load(search_file(propose(made_up(largest=5000))))
    assert list(values) == ["study", "resources", "space", "train", "retrain"]
    assert list(values["study"]) == ["name", "objectives", "num_trials"]
    assert list(values["train"])[:3] == ["model", "data", "augmentation"]


def test_a_reason_cannot_break_out_of_its_comment() -> None:
    proposal = propose(made_up())
    choice = Choice(("train", "seed"), 7, "first\nseed: 8\n" + "long " * 40)
    values = yaml.safe_load(search_file(replace(proposal, choices=(*proposal.choices, choice))))
    assert values["train"]["seed"] == 7
    assert "seed" not in values


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/images/flowers", "flowers"), ("/data/my images (2)", "my-images-2"),
        ("/data/list.csv", "list"), ("/data/.hidden", "hidden"), ("/data/写真", "fine_tune"),
    ],
)  # fmt: skip
def test_a_study_is_named_after_its_images(folder: str, name: str) -> None:
    assert study_name(propose(made_up(folder=folder))) == name
