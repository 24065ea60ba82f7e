"""Tests of every shipped search file: its opening, and trainings of its space, shrunk.

Whole searches are in tests/test_*_end_to_end.py; here each file's settings meet the trainer.
"""

from pathlib import Path

import optuna
import pytest
from configs import changed

import search_spaces
from hpo.config.loading import load_search_config
from hpo.config.search_space import ARCHITECTURE, apply_params, suggest_params
from hpo.proposal.rules import Recipe
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.training.trainer import Trainer

SHIPPED = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))
NAMES = {
    "budget", "core", "digits", "families", "fine_tune", "latency", "sgformer", "small", "smoke",
}  # fmt: skip


def test_each_purpose_has_its_file() -> None:
    assert {path.stem for path in SHIPPED} == NAMES
    assert set(Recipe.__args__) <= NAMES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_file_opens_with_when_to_take_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = " ".join(lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    assert len(opening) > 150
    assert "--data-dir" in opening or path.stem == "digits"


def shrunk(path: Path, image_folder: Path, cache_dir: Path) -> list[TrainConfig]:
    """The default configuration and a random one, of the smallest model at 32 pixels."""
    config, _ = load_search_config(path, data_dir=image_folder)
    default = changed(
        config.train,
        model={"name": "sg_former_pico", "pretrained": False},
        data={"image_size": 32, "num_workers": 0, "cache_dir": cache_dir},
        optimizer={"warmup_epochs": 0.5},
        max_epochs=1,
        device="cpu",
    ).resolved()
    space = {
        name: one
        for name, one in config.space.items()
        if name not in ARCHITECTURE and not one.when
    }
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    return [default, apply_params(default, suggest_params(trial, space), path.stem)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shrunk_configurations_of_each_file_train(
    path: Path, image_folder: Path, cache_dir: Path
) -> None:
    for config in shrunk(path, image_folder, cache_dir):
        trainer = Trainer(config, load_image_data(config.data))
        (epoch,) = trainer.epochs()
        assert epoch.train_loss > 0
        assert trainer.history == [epoch]
