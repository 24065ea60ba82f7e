"""Fixtures: runs for the tests of reports."""

from pathlib import Path

import pytest

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.run_folder import RunFolder


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file, ["study.num_trials=9"])[0]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)
