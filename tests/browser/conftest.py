"""Fixtures: a study that a search is at work on, and a run whose search has ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import write_run
from dashboards import Served, served
from reports import compare

from hpo.dashboard.guard import Access
from hpo.reporting.report import write_report
from hpo.run import Run, open_run


@pytest.fixture(scope="module")
def ended_run(
    tmp_path_factory: pytest.TempPathFactory, image_folder: Path, cache_dir: Path
) -> Run:
    """A run whose search has ended, by simulated trainings, with its report."""
    import yaml
    from searches import search_values

    folder = tmp_path_factory.mktemp("ended")
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(search_values(image_folder, cache_dir)))
    run = open_run(write_run(folder / "digits", file, "study.num_trials=20", "retrain.seeds=2"))
    run.study.metadata.search_config = run.config.model_dump(mode="json")
    run.study.metadata.images = {"classes": ["a", "b"], "train": 60, "val": 100, "test": 20}
    finalists = {0: [0.1, 0.12], run.reload().trials[1].number: [0.2, 0.21]}
    compare(run.config, run.study, finalists)
    for trial in run.reload().trials:
        path = run.folder.trials / str(trial.number) / "epochs.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (f"{epoch},{value}" for epoch, value in trial.curve.items())
        path.write_text("\n".join(["epoch,val_top1", *rows]))
    write_report(run.folder, run.config, run.study)
    return run.reload()


@pytest.fixture(scope="module")
def dashboard(ended_run: Run) -> Iterator[Served]:
    """The dashboard of the ended run, read-only."""
    study = ended_run.study
    with served(
        study.storage, Access("127.0.0.1"), page=f"/dashboard/studies/{study.id}",
        folders={study.id: ended_run.folder},
    ) as one:  # fmt: skip
        yield one
