"""Tests of which models of a study are delivered; test_retrain.py has trainings and exports."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from studies import create_study
from watcher import Watcher

from hpo import Run, RunFolder, load_search_config
from hpo.delivery.front import deliver_winners
from hpo.errors import RunError
from hpo.selection.finalists import retrain_config
from hpo.study.trial import TrialStatus
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import load_image_data


@pytest.fixture
def run(search_file: Path, tmp_path: Path) -> Run:
    """A run whose study has no trial yet."""
    config, _ = load_search_config(search_file)
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    folder.save_config(config)
    return Run(folder, config, create_study(folder.storage_url(config), config))


@pytest.fixture
def images(run: Run) -> ImagesId:
    return load_image_data(run.config.train.data).images.id


def end_trial(run: Run, state: TrialStatus, reason: str, value: float | None = None) -> int:
    number = run.study.ask().number
    run.study.report(number, {1: value or 0.25})
    run.study.finish(number, state, {"end_reason": reason}, value)
    return number


def test_where_all_trials_diverged_a_lower_learning_rate_is_what_helps(
    run: Run, images: ImagesId
) -> None:
    for _ in range(2):
        end_trial(run, TrialStatus.PRUNED, "diverged")
    with pytest.raises(RunError) as caught:
        deliver_winners(run, Watcher(), images)
    said = str(caught.value)
    assert said.startswith("all 2 trials of study 'tiny' diverged (")
    assert "lower space.optimizer.learning_rate" in said
    assert "raise budget" not in said


def test_where_all_trials_that_did_not_fail_diverged_this_is_said(
    run: Run, images: ImagesId
) -> None:
    end_trial(run, TrialStatus.PRUNED, "diverged")
    end_trial(run, TrialStatus.FAIL, "RuntimeError: a cosmic ray")
    message = r"^1 of 2 trials .* diverged \(.*\) and the others failed, .*; lower space\."
    with pytest.raises(RunError, match=message):
        deliver_winners(run, Watcher(), images)


def test_where_no_trial_ran_to_its_end_a_larger_budget_helps(run: Run, images: ImagesId) -> None:
    end_trial(run, TrialStatus.PRUNED, "diverged")
    end_trial(run, TrialStatus.PRUNED, "stopped by the scheduler")
    with pytest.raises(RunError, match=r"no trial .* ran to its end, .*; raise budget or study"):
        deliver_winners(run, Watcher(), images)


def deliver_as_before(run: Run, folder: Path) -> None:
    """Ends a trial as the winner, and writes files like those of its delivered model."""
    number = end_trial(run, TrialStatus.COMPLETE, "completed", 0.5)
    train = retrain_config(run.config, run.study.trials()[number].params)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(train.model_dump_json())
    (folder / "export.json").write_text("{}")


def test_a_model_that_is_delivered_is_not_trained_again(run: Run, images: ImagesId) -> None:
    deliver_as_before(run, run.folder.best)
    watcher = Watcher()
    deliver_winners(run, watcher, images)
    assert watcher.events == []


def test_a_model_that_a_crash_had_put_aside_is_put_back(run: Run, images: ImagesId) -> None:
    deliver_as_before(run, run.folder.best.with_name(".best-old"))
    watcher = Watcher()
    deliver_winners(run, watcher, images)
    assert run.folder.is_delivered
    assert watcher.events == []
    assert run.study.metadata.delivered_trial == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_cannot_be_deleted_of_the_front_ends_no_search(run: Run, images: ImagesId) -> None:
    deliver_as_before(run, run.folder.best)
    stuck = run.folder.front / "7" / "held"  # as NFS holds a file that is open somewhere
    stuck.mkdir(parents=True)
    shutil.copyfile(run.folder.search_file, run.folder.front / "7" / "model.onnx")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(stuck)], check=True)
    try:
        watcher = Watcher()
        deliver_winners(run, watcher, images)
        assert not (run.folder.front / "7" / "model.onnx").exists()
        ((said,),) = watcher.named("note")
        assert "front/7 is of a trial that is not on the front" in said
    finally:
        subprocess.run(["umount", "--lazy", str(stuck)], check=True)
