"""Tests that run the examples in the docstrings of `from hpo import ...` on a finished search."""

import re
import subprocess
import sys
from textwrap import dedent

import pytest
from command_line import environment_of_a_test, load_trials
from searches import FinishedSearch

import hpo
from hpo import open_run
from hpo.study.trial import TrialStatus


@pytest.mark.parametrize("name", ["load_search_config", "run_search", "open_run"])
def test_the_example_of_the_docstring_runs(finished: FinishedSearch, name: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", getattr(hpo, name).__doc__, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", dedent(example)],
        check=False, capture_output=True, text=True, cwd=finished.root,
        env=environment_of_a_test(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if name != "load_search_config":
        assert "best/model.onnx" in done.stdout


def test_a_finished_run_is_opened_with_all_that_the_search_has_found(
    finished: FinishedSearch,
) -> None:
    run = open_run(finished.folder)
    assert run.is_complete
    assert [trial.number for trial in run.trials] == list(range(8))
    assert len(load_trials(finished.folder)) == 8
    assert run.trials[2].state == TrialStatus.FAIL
    assert run.verdict is not None
    assert run.winner == run.delivered == run.trials[run.verdict.winner]
    assert run.best is not None
    assert run.front == (run.best,)
    complete = [t.value for t in run.trials if t.value is not None]
    assert run.best_value == max(complete)
    files = run.files
    assert {files.onnx, files.checkpoint, files.config, files.classes, files.metrics,
            files.export_report} == set(run.folder.best.iterdir())  # fmt: skip
    assert f"trial {run.winner.number}, " in finished.out
