"""Tests of a run's own copies of the weights that its trainings start from."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sgformer.model.sizes  # noqa: F401  registers SG-Former's models with timm
from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.errors import RunError, StudyError
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training, run_training
from hpo.run_folder import RunFolder
from hpo.run_weights import find_weights, keep_weights, weights_of
from sgformer.config import ModelConfig, TrainConfig
from sgformer.errors import CheckpointError

CHECKPOINT = "{{type: categorical, choices: [{}], when: {{model.name: [{}]}}}}"
NAMES = "space.model.name={type: categorical, choices: [sg_former_pico, test_resnet]}"


def write_weights(path: Path, name: str = "sg_former_pico", num_classes: int = 7) -> Path:
    model = timm.create_model(name, num_classes=num_classes)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.make()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "source.safetensors")


def config_of(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, overrides)[0]


def ignore(_: str) -> None:
    """Takes a note."""


def test_pretrained_weights_are_copied_to_the_run_and_told_once(
    search_file: Path, run: RunFolder, source: Path
) -> None:
    config = config_of(search_file, f"train.model.checkpoint={source}")
    notes: list[str] = []
    keep_weights(config, run, notes.append)
    keep_weights(config, run, notes.append)
    stored = weights_of(run, config.train.model)
    assert stored is not None
    assert stored.path.name == f"sg_former_pico-{stored.digest[:12]}.safetensors"
    assert load_file(stored.path).keys() == load_file(source).keys()
    assert len(notes) == 1
    assert notes[0].startswith("sg_former_pico starts from 189 of 191 tensors of ")
    assert "; new: head.weight, head.bias (" in notes[0]
    with safe_open(stored.path, "pt") as file:
        assert str(source.parent) not in str(file.metadata())


def test_equal_weights_are_one_file(search_file: Path, run: RunFolder, source: Path) -> None:
    other = source.with_name("other.safetensors")
    other.write_bytes(source.read_bytes())
    choices = f"{{type: categorical, choices: [{source}, {other}, null]}}"
    keep_weights(config_of(search_file, f"space.model.checkpoint={choices}"), run, ignore)
    assert len(list((run.path / "weights").glob("*.safetensors"))) == 1


def test_a_relative_checkpoint_is_found_from_the_current_folder(
    search_file: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    config = config_of(search_file, "train.model.checkpoint=source.safetensors")
    assert config.train.model.checkpoint == source
    choices = "{type: categorical, choices: [source.safetensors, null]}"
    config = config_of(search_file, f"space.model.checkpoint={choices}")
    assert config.space["model.checkpoint"].examples() == (str(source), None)


def test_every_source_of_the_space_is_found_with_its_condition(
    search_file: Path, source: Path, tmp_path: Path
) -> None:
    other = write_weights(tmp_path / "resnet.safetensors", "test_resnet")
    conditional = CHECKPOINT.format(other, "test_resnet")
    config = config_of(search_file, NAMES, f"space.model.checkpoint={conditional}")
    (found,) = find_weights(config)
    assert (found.model.name, found.model.checkpoint) == ("test_resnet", other)
    conditional = CHECKPOINT.format(source, "test_resnet")
    config = config_of(search_file, NAMES, f"space.model.checkpoint={conditional}")
    with pytest.raises(CheckpointError, match=r"^space\.model\.checkpoint: .*not fit test_resnet"):
        list(find_weights(config))


def test_weights_that_fit_not_every_image_size_are_refused(
    search_file: Path, tmp_path: Path
) -> None:
    # A mixer has weights for the positions of one image size.
    path, mixer = tmp_path / "mixer.safetensors", "mixer_s32_224"
    model = timm.create_model(mixer, num_classes=7, img_size=64)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, path)
    config = config_of(
        search_file,
        f"train.model.name={mixer}",
        f"train.model.checkpoint={path}",
        "train.data.image_size=64",
    )
    assert len(list(find_weights(config))) == 1
    larger = "space.data.image_size={type: categorical, choices: [64, 96]}"
    config = config_of(
        search_file,
        f"train.model.name={mixer}",
        f"train.model.checkpoint={path}",
        "train.data.image_size=64",
        larger,
    )
    with pytest.raises(
        CheckpointError,
        match=r"another model, or another image size: .* there and .* in the model",
    ):
        list(find_weights(config))


def test_a_condition_keeps_the_two_sources_apart(search_file: Path, source: Path) -> None:
    config = config_of(
        search_file,
        "space.model.pretrained={type: categorical, choices: [true, false]}",
        f"space.model.checkpoint={{type: categorical, choices: [{source}, null], "
        "when: {model.pretrained: [false]}}",
        "train.model.name=test_resnet",
        "train.model.pretrained=true",
    )
    assert config.train.model.pretrained


def test_a_run_goes_on_with_its_copy_when_the_file_has_changed_or_gone(
    search_file: Path, run: RunFolder, source: Path
) -> None:
    config = config_of(search_file, f"train.model.checkpoint={source}")
    keep_weights(config, run, ignore)
    former, content = weights_of(run, config.train.model), source.read_bytes()
    write_weights(source)
    notes: list[str] = []
    keep_weights(config, run, notes.append)
    assert weights_of(run, config.train.model) == former
    assert len(notes) == 1
    assert notes[0].startswith(f"model.checkpoint: {source} has changed since this run began")
    notes.clear()
    source.unlink()
    keep_weights(config, run, notes.append)
    source.write_bytes(content)
    keep_weights(config, run, notes.append)
    assert notes == []


def test_a_damaged_copy_is_refused(search_file: Path, run: RunFolder, source: Path) -> None:
    config = config_of(search_file, f"train.model.checkpoint={source}")
    keep_weights(config, run, ignore)
    stored = weights_of(run, config.train.model)
    assert stored is not None
    for spoil in (lambda: stored.path.write_bytes(b""), stored.path.unlink):
        spoil()
        with pytest.raises(StudyError, match=r"copy of its weights, .* is missing or damaged"):
            keep_weights(config, run, ignore)


def test_a_successor_takes_the_weights_over(
    search_file: Path, run: RunFolder, source: Path
) -> None:
    config = config_of(search_file, f"train.model.checkpoint={source}")
    keep_weights(config, run, ignore)
    source.unlink()
    successor = RunFolder(run.path.with_name("x-2"))
    successor.make()
    keep_weights(config, successor, ignore, predecessor=run)
    ours, theirs = (weights_of(folder, config.train.model) for folder in (run, successor))
    assert ours is not None
    assert theirs is not None
    assert ours.digest == theirs.digest
    assert theirs.path.is_file()


def test_weights_are_a_part_of_a_trainings_identity(
    train_config: TrainConfig, search_file: Path, run: RunFolder, source: Path
) -> None:
    config = config_of(search_file, f"train.model.checkpoint={source}")
    keep_weights(config, run, ignore)
    model = train_config.model.model_copy(update={"checkpoint": source})
    train = train_config.model_copy(update={"model": model, "max_epochs": 2})
    folder = run.trials / "0"
    stored = weights_of(run, train.model)
    assert stored is not None
    epochs = run_training(Training(train, folder, weights=stored))
    facts = next(filter(None, epochs)).facts
    epochs.close()
    assert facts["weights"] == (f"189 of 191 tensors of {source}; new: head.weight, head.bias")
    assert facts["config_fingerprint"] == train.resolved().fingerprint(stored.digest)
    source.unlink()
    stored.path.rename(run.path / "moved")  # a training that has begun needs no weights any more
    resumed = next(filter(None, run_training(Training(train, folder, weights=stored))))
    assert resumed.facts["weights"] == facts["weights"]
    with pytest.raises(CheckpointError, match="or to other weights"):
        next(run_training(Training(train, folder)))
    with pytest.raises(RunError, match=r"weights .*sg_former_pico-\w+\.safetensors are not there"):
        next(run_training(Training(train, run.trials / "1", weights=stored)))


def test_each_seed_starts_from_the_weights_with_a_head_of_its_own(
    train_config: TrainConfig, search_file: Path, run: RunFolder, source: Path
) -> None:
    keep_weights(config_of(search_file, f"train.model.checkpoint={source}"), run, ignore)
    heads, stems = [], []
    for seed in (1, 2):
        values = train_config.model_dump()
        values["model"]["checkpoint"] = source
        values["optimizer"] |= {"learning_rate": 1e-12}
        values |= {"seed": seed, "max_epochs": 1}
        train = TrainConfig.model_validate(values)
        folder = run.retraining / str(seed)
        stored = weights_of(run, train.model)
        list(retrain_epochs(Training(train, folder, weights=stored)))
        tensors = load_file(folder / "best.safetensors")
        heads.append(tensors["head.weight"])
        stems.append(tensors["stem.0.weight"])
    assert torch.allclose(*stems, atol=1e-6)
    assert not torch.allclose(*heads, atol=1e-3)


def test_weights_that_were_never_copied_are_named(run: RunFolder) -> None:
    with pytest.raises(RunError, match="has no weights of sg_former_pico pretrained; --resume"):
        weights_of(run, ModelConfig(name="sg_former_pico", pretrained=True))
    assert weights_of(run, ModelConfig(name="sg_former_pico")) is None
