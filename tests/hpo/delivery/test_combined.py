"""Soups and ensembles of trained models in this process; whole searches are in tests/test_*.py."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from configs import changed
from finalist_trials import tell
from studies import create_study
from watcher import Watcher

from hpo import Run, RunFolder, load_search_config
from hpo.delivery.combination import Combination, read_combination
from hpo.delivery.retrain import retrain_and_deliver
from hpo.execution.retrain import retrain_epochs
from hpo.execution.training import Training
from hpo.model_files import ModelFiles
from hpo.selection.finalists import Finalists, asked_for, retrain_config, training_name
from sgformer.export.onnx_classifier import OnnxClassifier
from sgformer.training.checkpoint import save_checkpoint
from sgformer.training.checkpoint_file import load_checkpoint
from sgformer.training.trained_model import load_trained

SETTINGS = (
    "retrain={seeds: 3, top_k: 1, max_share: null}",
    "train.max_epochs=1",
    "report.images=false",
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, image_folder: Path, cache_dir: Path) -> Path:
    """The weights of a pico that was trained for longer than those that it is put among."""
    import yaml
    from searches import search_values

    root = tmp_path_factory.mktemp("good")
    (root / "tiny.yaml").write_text(yaml.safe_dump(search_values(image_folder, cache_dir)))
    config, _ = load_search_config(root / "tiny.yaml")
    rate = {"learning_rate": 4e-3}
    training = Training(changed(config.train, max_epochs=12, optimizer=rate), root / ".r" / "0-x")
    RunFolder(root).make()
    list(retrain_epochs(training))
    return training.folder / "best.safetensors"


def run_of(search_file: Path, folder: Path, deliver: str) -> Run:
    """A run whose default configuration won on three seeds, trained for an epoch on the first."""
    config, _ = load_search_config(search_file, (*SETTINGS, f"retrain.deliver={deliver}"))
    run = RunFolder(folder)
    run.make()
    study = create_study(run.storage_url(config), config)
    study.report(study.ask().number, {1: 0.5})
    study.finish(0, "COMPLETE", {"end_reason": "completed", "num_parameters": 9}, 0.5)
    finalists = Finalists(
        numbers=(0,), asked_for=asked_for(config, study.trials()), num_seeds=3,
        num_val_images=30, fold_ratio=None,
    )  # fmt: skip
    study.metadata.finalists = finalists.model_dump(mode="json")
    tell(config, study, finalists, {0: 0.5})
    return Run(run, config, study)


def put(run: Run, seed: int, good: Path, noise: float = 0.0) -> Path:
    """Puts a training's folder among those of the finalists, as an ended training left it."""
    train = retrain_config(run.config, run.trials[0].params, seed - 1)
    folder = run.folder.retraining / training_name(0, train)
    if seed == 1:
        run.folder.mark()
        list(retrain_epochs(Training(train, folder)))
    folder.mkdir(parents=True, exist_ok=True)
    tensors, metadata = load_checkpoint(good)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and noise:
            scale = tensor.std() if tensor.numel() > 1 else 1.0
            tensor += noise * scale * torch.randn(tensor.shape, generator=generator)
            tensors[name] = tensor
    metadata["config"] = train.resolved().model_dump(mode="json")
    metadata = {name: value for name, value in metadata.items() if name != "format_version"}
    save_checkpoint(folder / "best.safetensors", tensors, metadata)
    return folder


def delivered(run: Run) -> tuple[Combination, dict]:
    retrain_and_deliver(run, run.trials[0], Watcher(), combines=True)
    found = read_combination(run.files)
    assert found is not None
    return found, json.loads(run.files.metrics.read_text())


def test_an_ensemble_that_gains_is_delivered_as_one_model(
    search_file: Path, tmp_path: Path, good: Path
) -> None:
    run = run_of(search_file, tmp_path / "run", "ensemble")
    put(run, 1, good, noise=3.0)
    for seed in (2, 3):
        put(run, seed, good)
    found, metrics = delivered(run)
    assert (found.delivered, len(found.members), found.num_candidates) == ("ensemble", 3, 3)
    assert found.text().startswith("an ensemble of 3 models: trial 0 on seeds 1, ")
    assert found.gain is not None
    assert 0 < found.low < found.gain
    assert metrics["val"]["top1"] == pytest.approx(found.together)
    assert set(metrics["latency_ms"]) == {"delivered", "winner alone"}
    _, model, classes = load_trained(run.files.checkpoint)
    assert len(model.models) == 3
    classifier = OnnxClassifier(run.files.onnx)
    assert classifier.classes == classes
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = model(images)
    logits = torch.from_numpy(classifier.logits(images.numpy()))
    torch.testing.assert_close(logits, expected, rtol=1e-2, atol=1e-2)
    assert ModelFiles(run.folder.best).asked_to_be == "ensemble"
    assert not run.folder.retraining.exists()


def test_a_soup_that_gains_is_delivered_as_the_mean_of_its_weights(
    search_file: Path, tmp_path: Path, good: Path
) -> None:
    """The noise of one training is the negative noise of the other.

    A soup that a killed search has left half written is made anew.
    """
    run = run_of(search_file, tmp_path / "run", "soup")
    put(run, 1, good, noise=1.2)
    put(run, 2, good, noise=-1.2)
    left = run.folder.retraining / "combined"
    left.mkdir()
    (left / "best.safetensors").write_bytes(b"half a file")
    found, metrics = delivered(run)
    assert (found.delivered, len(found.members)) == ("soup", 2)
    assert found.num_missing == 1
    tensors, expected = load_checkpoint(run.files.checkpoint)[0], load_checkpoint(good)[0]
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert metrics["val"]["top1"] == pytest.approx(found.together)
    assert metrics["val"]["top1"] > found.alone


def test_a_soup_of_unlike_models_is_refused_and_the_winner_delivered(
    search_file: Path, tmp_path: Path, good: Path
) -> None:
    run = run_of(search_file, tmp_path / "run", "soup")
    put(run, 1, good)
    folder = put(run, 2, good, noise=3.0)
    found, metrics = delivered(run)
    assert (found.delivered, len(found.members)) == ("winner", 1)
    assert metrics["val"]["top1"] == pytest.approx(found.alone)
    assert "latency_ms" not in metrics
    assert "not a soup: none of 1 other models keeps val from falling; the" in found.text()
    assert "start from different random weights" in found.text()
    assert not folder.exists()


@pytest.mark.parametrize("deliver", ["soup", "ensemble"])
def test_a_soup_or_ensemble_of_one_is_the_winner_and_says_so(
    search_file: Path, tmp_path: Path, good: Path, deliver: str
) -> None:
    run = run_of(search_file, tmp_path / "run", deliver)
    shutil.rmtree(put(run, 2, good))
    put(run, 1, good)
    found, _ = delivered(run)
    assert (found.delivered, found.num_candidates, found.num_missing) == ("winner", 1, 2)
    assert "combine it with, as the weights of 2 are gone" in found.text()
