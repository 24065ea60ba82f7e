import shutil
from pathlib import Path

import pytest
import yaml
from extensions import Extendable

from hpo.config.loading import load_search_config
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.transfer.extended_search import (
    as_overrides,
    delivered_model,
    extended_train,
    extension_settings,
    one_training,
    write_search_file,
)
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError, InputError
from sgformer.training.checkpoint import save_checkpoint
from sgformer.training.checkpoint_file import load_checkpoint
from sgformer.training.trained_model import ensemble_checkpoint


def settings(extendable: Extendable) -> dict:
    return extension_settings(extendable.base, extendable.images, None)


def test_a_run_is_extended_by_one_training_of_its_models_configuration(
    search_file: Path, extendable: Extendable, train_config: TrainConfig, tmp_path: Path
) -> None:
    was, _ = load_search_config(search_file)
    model = train_config.with_epochs(20)
    values = one_training(was, model, extendable.images)
    file = write_search_file(tmp_path, values)
    config, notes = load_search_config(file, as_overrides(settings(extendable)), name="x")
    assert notes == ()
    train = config.train
    assert train.optimizer.model_copy(update={"warmup_epochs": 1}) == model.optimizer
    assert (train.augmentation, train.data.cache_dir) == (
        model.augmentation, was.train.data.cache_dir,
    )  # fmt: skip
    assert train.model.checkpoint == train.extension.base == extendable.base
    assert train.distillation.teacher == (extendable.base,)
    assert train.distillation.weight == 0.5  # 8 / (8 + 2 x 2^2)
    assert train.data.data_dir == extendable.images.manifest
    assert (config.study.num_trials, config.retrain.seeds, train.max_epochs) == (1, 0, 1)
    assert config.fresh_epochs == 20  # 38 images are a step
    assert config.resources.max_concurrent_trials == was.resources.max_concurrent_trials


@pytest.mark.parametrize(("num_images", "epochs"), [(38, 20), (220, 6), (400, 6), (10**6, 6)])
def test_an_extension_is_a_part_of_the_models_training_but_takes_steps_enough(
    num_images: int, epochs: int, train_config: TrainConfig
) -> None:
    model = train_config.with_epochs(20)
    assert extended_train(model, num_images)["max_epochs"] == epochs


def test_what_became_white_in_the_models_images_does_so_in_an_extension(
    extendable: Extendable,
) -> None:
    found = extension_settings(extendable.base, extendable.images, 4095.0)
    assert found["train.data.max_value"] == 4095.0


def test_a_search_of_extensions_takes_its_settings(
    search_file: Path, extendable: Extendable
) -> None:
    values = yaml.safe_load(search_file.read_text())
    values["space"] = {
        "extension.exemplars": {"type": "int", "low": 1, "high": 3},
        "extension.choice": {"type": "categorical", "choices": ["herding", "random"]},
    }
    values["train"]["extension"] = {"exemplars": 2}
    search_file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"space\.extension\.choice: no model is extended; "):
        load_search_config(search_file)
    config, _ = load_search_config(search_file, as_overrides(settings(extendable)))
    assert set(config.space) == {"extension.exemplars", "extension.choice"}
    values["space"]["model.name"] = {"type": "categorical", "choices": ["sg_former_pico"]}
    search_file.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"space\.model\.name: cannot be searched in an extens"):
        load_search_config(search_file, as_overrides(settings(extendable)))


def test_a_run_without_a_model_is_not_extended(search_file: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(StudyError, match="run"):
        delivered_model(run)
    run.path.mkdir()
    shutil.copyfile(search_file, run.search_file)
    with pytest.raises(StudyError, match=r"run has delivered no model; finish it with --resume"):
        delivered_model(run)


@pytest.fixture
def delivered(search_file: Path, tmp_path: Path) -> RunFolder:
    """A run with all of a delivered model but its checkpoint."""
    run = RunFolder(tmp_path / "run")
    run.best.mkdir(parents=True)
    shutil.copyfile(search_file, run.search_file)
    for name in ("model.onnx", "metrics.json", "export.json"):
        (run.best / name).touch()
    return run


def test_an_ensemble_is_not_extended(extendable: Extendable, delivered: RunFolder) -> None:
    member = extendable.base / "checkpoint.safetensors"
    checkpoint = delivered.best / member.name
    save_checkpoint(checkpoint, *ensemble_checkpoint([member, member]))
    with pytest.raises(StudyError, match=r"ensemble of 2 models.*; extend a run that .* a soup"):
        delivered_model(delivered)


def test_a_model_that_takes_features_is_not_extended(
    extendable: Extendable, delivered: RunFolder
) -> None:
    tensors, metadata = load_checkpoint(extendable.base / "checkpoint.safetensors")
    metadata["config"]["data"]["features"] = "features.csv"
    metadata["config"]["model"]["fusion"]["num_features"] = 3
    own = {name: value for name, value in metadata.items() if name != "format_version"}
    save_checkpoint(delivered.best / "checkpoint.safetensors", tensors, own)
    with pytest.raises(StudyError, match=r"takes features beside images, .*`search --features`"):
        delivered_model(delivered)


def test_an_extension_takes_no_features(extendable: Extendable, train_config: TrainConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.features: an extension takes images alone, got 'a\.csv'"
    ):
        extendable.config(train_config, data={"features": "a.csv"})


def test_a_search_file_of_an_extension_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*extend\.yaml: No such file"):
        write_search_file(tmp_path / "gone", {})
