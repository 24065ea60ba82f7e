"""Searches that start from pretrained weights, run as a user does."""

import shutil
from pathlib import Path

import timm
from command_line import load_trials, run
from safetensors.torch import save_file
from searches import write_search

from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.model.weight_files import read_weights
from sgformer.training.checkpoint import save_progress
from sgformer.training.trainer import Trainer

SHORT = {"num_trials": 2, "enqueue": []}


def write_earlier_run(folder: Path, config: TrainConfig) -> Path:
    """Writes best/checkpoint.safetensors of a run; returns the folder best/."""
    trainer = Trainer(config.model_copy(update={"max_epochs": 1}), load_image_data(config.data))
    list(trainer.epochs())
    save_progress(trainer, folder / "trial")
    (folder / "best").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(
        folder / "trial" / "best.safetensors", folder / "best" / "checkpoint.safetensors"
    )
    return folder / "best"


def test_a_search_starts_from_pretrained_weights_of_a_run_and_outlives_them(
    tmp_path: Path, image_folder: Path, cache_dir: Path, train_config: TrainConfig
) -> None:
    best = write_earlier_run(tmp_path / "runs" / "earlier", train_config)
    weights = read_weights(best)
    file = write_search(tmp_path / "tuned.yaml", image_folder, cache_dir, study=SHORT)
    model = ("--set", f"train.model.checkpoint={best}")
    short = ("--set", "train.max_epochs=1", *model, "--output-dir", tmp_path / "runs")
    done = run("search", file, *short)
    loaded = f"191 of 191 tensors of {best / 'checkpoint.safetensors'}"
    assert done.stderr.count(f"sg_former_pico starts from {loaded} (") == 1
    assert done.stderr.index("starts from") < done.stderr.index("starting Ray")
    folder = tmp_path / "runs" / "tuned"
    assert [trial.user_attrs["weights"] for trial in load_trials(folder)] == [loaded] * 2
    (copy,) = (folder / "weights").glob("*.safetensors")
    assert read_weights(copy).tensors.keys() == weights.tensors.keys()
    assert str(best).encode() not in (folder / "best" / "model.onnx").read_bytes()

    shutil.rmtree(best.parent)
    more = ("--resume", "--set", "study.num_trials=3")
    done = run("search", file, *short, *more)
    assert "starts from" not in done.stderr
    assert [trial.user_attrs["weights"] for trial in load_trials(folder)] == [loaded] * 3

    other = train_config.model_copy(update={"seed": 1})
    write_earlier_run(best.parent, other)
    done = run("search", file, *short, "--resume", "--set", "study.num_trials=4")
    assert done.stderr.count(f"model.checkpoint: {best} has changed since this run began") == 1
    assert "starts from" not in done.stderr
    assert [trial.user_attrs["weights"] for trial in load_trials(folder)] == [loaded] * 4


def test_pretrained_weights_that_cannot_be_downloaded_end_with_2_before_ray_starts(
    tmp_path: Path, image_folder: Path, cache_dir: Path
) -> None:
    file = write_search(tmp_path / "tiny.yaml", image_folder, cache_dir, study=SHORT)
    name = ("--set", "train.model.name=test_resnet", "--set", "train.model.pretrained=true")
    place = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    for last in (("--output-dir", tmp_path / "runs"), ("--dry-run",)):
        done = run("search", file, *name, *last, expect=2, **place)
        assert (
            "train.model.pretrained: pretrained weights of test_resnet are not in" in done.stderr
        )
        assert "offline mode is enabled" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Ray" not in done.stderr


def test_pretrained_weights_in_the_hubs_cache_need_no_network(
    tmp_path: Path, image_folder: Path, cache_dir: Path
) -> None:
    repository = tmp_path / "hub" / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    model = timm.create_model("test_resnet")
    save_file(
        {n: t.contiguous() for n, t in model.state_dict().items()}, snapshot / "model.safetensors"
    )
    file = write_search(tmp_path / "tiny.yaml", image_folder, cache_dir, study=SHORT)
    choices = (
        "space.model.pretrained={type: categorical, choices: [true], "
        "when: {model.name: [test_resnet]}}"
    )
    names = "space.model.name={type: categorical, choices: [sg_former_pico, test_resnet]}"
    place = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = run("search", file, "--set", names, "--set", choices, "--dry-run", **place)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("weights ")]
    assert (
        "test_resnet starts from 90 of 92 tensors of timm's weights test_resnet.r160_in1k" in row
    )
    assert "; new: fc.weight, fc.bias (" in row
