"""Exports of architectures; tests/test_other_searches_end_to_end.py has a search with them."""

from pathlib import Path
from typing import Any

import pytest
from watcher import Watcher

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.delivery.exports import export_architectures
from hpo.engine.architectures import measure_architecture, missing_architectures
from hpo.execution.cluster import TrialResources, connected
from hpo.run_folder import RunFolder
from sgformer.errors import DataError, ExportError

TWO = "study.objectives=[[val_top1, maximize], [latency_ms, minimize]]"


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    models = "{type: categorical, choices: [sg_former_pico, sg_former_nano, test_maxvit]}"
    sizes = "train.data.image_size=64"  # test_maxvit takes no smaller image
    return load_search_config(search_file, [TWO, sizes, f"space.model.name={models}"])[0]


def export(config: SearchConfig, run: RunFolder, watcher: Any, num_slots: int = 2) -> Any:
    resources = TrialResources(cpus=1, gpus=0, num_slots=num_slots)
    missing = missing_architectures(config, {})
    return export_architectures(config, missing, 10, run, resources, watcher)


def test_one_slot_exports_nothing_ahead(config: SearchConfig, tmp_path: Path) -> None:
    assert export(config, RunFolder(tmp_path), Watcher(), num_slots=1) == {}


def test_what_is_not_timed_is_not_exported(search_file: Path, tmp_path: Path) -> None:
    models = "space.model.name={type: categorical, choices: [sg_former_pico, sg_former_nano]}"
    bound = "study.constraints=[num_parameters <= 2e5]"
    config, _ = load_search_config(search_file, [models, bound])
    assert export(config, RunFolder(tmp_path), Watcher()) == {}
    assert not RunFolder(tmp_path).architectures.exists()


def test_what_an_interrupted_search_exported_is_timed(
    config: SearchConfig, tmp_path: Path
) -> None:
    run, watcher = RunFolder(tmp_path), Watcher()
    run.architectures.mkdir()
    missing = missing_architectures(config, {})
    assert len(missing) == 3
    for name in missing:
        (run.architectures / f"{name}.onnx").write_text("no model")
    files = export(config, run, watcher)
    assert files.keys() == missing.keys()
    assert watcher.named("step") == [(3, 3)]
    name, params = next(iter(missing.items()))
    with pytest.raises(DataError, match="not an ONNX model"):  # the file is what is timed
        measure_architecture(config, params, 10, files[name])


def test_an_architecture_that_cannot_be_exported_is_named(
    config: SearchConfig, tmp_path: Path
) -> None:
    run, watcher = RunFolder(tmp_path), Watcher()
    run.architectures.mkdir()
    for name in missing_architectures(config, {}):
        if "maxvit" not in name:
            (run.architectures / f"{name}.onnx").touch()
    with connected(None), pytest.raises(ExportError, match="cannot export test_maxvit to ONNX"):
        export(config, run, watcher)
    assert watcher.named("step") == [(2, 3)]
