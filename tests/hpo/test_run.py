"""Tests of runs as `open_run` returns them; tests/test_*.py open runs of real searches."""

import subprocess
import sys
from pathlib import Path

import pytest
from studies import create_study

import hpo
from hpo import RunFolder, SearchConfig, load_search_config, open_run
from hpo.errors import StudyError
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialStatus


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


@pytest.fixture
def folder(tmp_path: Path, config: SearchConfig) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    folder.save_config(config)
    return folder


@pytest.fixture
def study(folder: RunFolder, config: SearchConfig) -> SearchStudy:
    return create_study(folder.storage_url(config), config)


def test_a_run_that_has_just_begun_has_nothing_to_show(
    folder: RunFolder, config: SearchConfig, study: SearchStudy
) -> None:
    run = open_run(str(folder.path))
    assert run.config == config
    assert run.trials == run.front == ()
    assert (run.best, run.best_value, run.verdict, run.winner, run.delivered) == (None,) * 5
    assert not run.is_delivered
    assert not run.is_complete


def test_what_a_living_search_adds_is_seen_after_a_reload(
    folder: RunFolder, study: SearchStudy
) -> None:
    first = study.ask()
    study.report(first.number, {1: 0.5, 2: 0.25})
    run = open_run(folder.path)
    assert [(t.number, t.state) for t in run.trials] == [(0, TrialStatus.RUNNING)]
    study.finish(first.number, TrialStatus.COMPLETE, {"end_reason": "completed"}, 0.5)
    other = study.ask()
    study.report(other.number, {1: 0.75})
    assert [t.state for t in run.trials] == [TrialStatus.RUNNING]
    later = run.reload()
    assert [t.state for t in later.trials] == [TrialStatus.COMPLETE, TrialStatus.RUNNING]
    assert later.best == later.winner == later.trials[0]
    assert later.best_value == 0.5
    assert later.front == (later.trials[0],)


def test_the_files_of_the_model_have_names(folder: RunFolder, study: SearchStudy) -> None:
    files = open_run(folder.path).files
    assert files.onnx == folder.best / "model.onnx"
    names = {p.name for p in (files.checkpoint, files.config, files.classes, files.metrics)}
    assert names == {"checkpoint.safetensors", "config.yaml", "classes.json", "metrics.json"}
    assert files.export_report.name == "export.json"
    assert not files.is_delivered
    assert files.fingerprint() is None


def test_a_study_that_is_gone_and_a_folder_of_no_run_are_refused(
    folder: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"the study of .*tiny is gone: no file .*study\.db"):
        open_run(folder.path)
    with pytest.raises(StudyError, match=r"not a run folder: .* has no search\.yaml"):
        open_run(tmp_path)


def test_the_interface_is_light_until_it_is_used() -> None:
    program = (
        "import sys, hpo\n"
        "assert set(hpo.__all__) <= set(dir(hpo))\n"
        "heavy = {'ray', 'torch', 'optuna', 'pydantic', 'scipy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "from hpo import load_search_config, open_run, run_search\n"
        "assert not {'ray', 'torch'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_name_of_the_interface_is_there_and_others_are_not() -> None:
    for name in hpo.__all__:
        assert getattr(hpo, name).__doc__
    with pytest.raises(AttributeError, match="module 'hpo' has no attribute 'no_such_name'"):
        _ = hpo.no_such_name  # type: ignore[attr-defined]


def test_a_type_checker_knows_the_interface(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from hpo import Run, load_search_config, open_run, run_search\n"
        "config, notes = load_search_config('a.yaml')\n"
        "run: Run = run_search(config, 'runs')\n"
        "reveal_type(open_run('runs/a').files.onnx)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", program],  # as strict as `make lint`, with its cache
        check=False, capture_output=True, text=True, cwd=Path(hpo.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "pathlib.Path"' in done.stdout
