"""Tests of TensorBoard's, MLflow's and W&B's trackers, with files alone."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS
from ports import free_port
from trackers import tensorboard_steps, wandb_steps

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.run_folder import RunFolder, becomes_true
from hpo.tracking.mlflow_runs import MlflowRuns
from hpo.tracking.tensorboard_events import TensorBoardEvents
from hpo.tracking.tracked_search import check_trackers
from hpo.tracking.tracker import News, Sent, Tracker, TrialEnd
from hpo.tracking.wandb_runs import WandbRuns
from sgformer.errors import InputError

PARAMS = {"optimizer.learning_rate": 0.01, "model.drop_rate": 0.1}
ENDED = TrialEnd("PRUNED", "stopped at rung 2", 0.75)


def row(epoch: int) -> dict:
    return {"epoch": epoch, "val_top1": epoch / 4, "val_loss": float("nan"), "unknown": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "tiny")
    run.make()
    return run


@pytest.fixture
def config_of(search_file: Path) -> Callable[..., SearchConfig]:
    return lambda *settings: load_search_config(search_file, settings)[0]


Config = Callable[..., SearchConfig]


@pytest.fixture(params=[TensorBoardEvents, MlflowRuns, WandbRuns])
def make(
    request: pytest.FixtureRequest,
    config_of: Config,
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Tracker]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = config_of(f"tracking.mlflow={tmp_path}/mlruns")
    return lambda: request.param(config, run)


def test_the_next_process_finds_what_a_tracker_has(make: Callable[[], Tracker]) -> None:
    first = make()
    first.check()
    assert first.begin() == {}
    first.send(0, News(PARAMS, [row(1), row(2)], num_epochs=2))
    first.send(0, News(PARAMS, [row(3)], end=ENDED, num_epochs=3))
    first.send(1, News(PARAMS, [row(1)], is_paused=True, num_epochs=1))
    first.close()
    second = make()
    assert second.begin() == {0: Sent(3, True), 1: Sent(1)}
    second.send(1, News(PARAMS, [row(2)], num_epochs=2))
    second.send(1, News(PARAMS, [], end=ENDED, num_epochs=2))
    second.close()
    assert make().begin() == {0: Sent(3, True), 1: Sent(2, True)}


def test_event_files_have_curves_and_hparams(config_of: Config, run: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data as start

    for rows in ([row(1), row(2)], [row(3)]):  # two processes
        tracker = TensorBoardEvents(config_of(), run)
        tracker.begin()
        tracker.send(0, News(PARAMS, rows, end=ENDED if len(rows) == 1 else None, num_epochs=3))
    folder = run.path / "tensorboard"
    trial = EventAccumulator(str(folder / "trial-0")).Reload()
    assert [(e.step, e.value) for e in trial.Scalars("val_top1")] == [
        (1, 0.25),
        (2, 0.5),
        (3, 0.75),
    ]
    assert [(e.step, e.value) for e in trial.Scalars("best_val_top1")] == [(3, 0.75)]
    assert tensorboard_steps(folder / "trial-0", "val_loss") == [1, 2, 3]
    data = trial.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert {n: v.number_value for n, v in start(data).hparams.items()} == PARAMS
    root = EventAccumulator(str(folder)).Reload()
    content = root.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = parse_experiment_plugin_data(content)
    assert {info.name for info in experiment.hparam_infos} == PARAMS.keys()
    tags = [info.name.tag for info in experiment.metric_infos]
    assert tags == ["best_val_top1", "val_top1"]


def test_mlflow_has_a_nested_run_with_tags_and_steps(
    config_of: Config, run: RunFolder, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    tracker = MlflowRuns(config_of(f"tracking.mlflow={tmp_path}/mlruns"), run)
    tracker.begin()
    tracker.send(0, News(PARAMS, [row(epoch) for epoch in range(1, 131)], num_epochs=130))
    tracker.send(0, News(PARAMS, [], end=ENDED, num_epochs=130))
    client = MlflowClient(f"{tmp_path}/mlruns")
    experiment = client.get_experiment_by_name("tiny")
    search, trial = sorted(
        client.search_runs([experiment.experiment_id]), key=lambda one: len(one.data.params)
    )
    assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert trial.data.params == {name: str(value) for name, value in PARAMS.items()}
    assert trial.data.tags["sgformer.state"] == "PRUNED"
    assert trial.data.tags["sgformer.end_reason"] == "stopped at rung 2"
    history = client.get_metric_history(trial.info.run_id, "val_top1")
    assert [metric.step for metric in history] == [*range(1, 131)]


def test_wandb_has_a_run_a_trial_in_files(
    config_of: Config, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for rows in ([row(1), row(2)], [row(3)]):  # two processes
        tracker = WandbRuns(config_of(), run)
        tracker.begin()
        tracker.send(4, News(PARAMS, rows, num_epochs=3))
        tracker.close()

    def steps() -> list[int]:
        return sorted(wandb_steps(run.path / "wandb", f"{run.mark()[:16]}-4"))

    # A process of wandb's own writes the file.
    assert becomes_true(lambda: steps() == [1, 2, 3], PATIENCE_SECONDS), steps()


@pytest.mark.parametrize(
    ("package", "setting"),
    [
        ("tensorboard", "tracking.tensorboard=true"),
        ("mlflow", "tracking.mlflow=http://127.0.0.1:1"),
        ("wandb", "tracking.wandb=true"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str,
    setting: str,
    config_of: Config,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "hpo.tracking.tracker.find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(InputError, match=rf"--{package} needs .* '.\[{package}\]'"):
        check_trackers(config_of(setting), run)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_folder_that_cannot_be_written_to_is_refused(
    name: str, config_of: Config, run: RunFolder
) -> None:
    (run.path / name).write_text("a file in its place")
    with pytest.raises(InputError, match=f"cannot write to the run folder .*/{name}"):
        check_trackers(config_of(f"tracking.{name}=true"), run)


def test_an_mlflow_that_is_away_is_refused_without_its_password(
    config_of: Config, run: RunFolder
) -> None:
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(
        InputError, match=r"MLflow at http://127.0.0.1:.* cannot be used"
    ) as caught:
        check_trackers(config_of(f"tracking.mlflow={uri}"), run)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://host", "cannot be used"),
        ("postgresql://u:secret@host/d", "holds a password"),
    ],
)
def test_a_wrong_mlflow_uri_is_refused(
    uri: str, message: str, config_of: Config, run: RunFolder
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_trackers(config_of(f"tracking.mlflow={uri}"), run)
    assert "secret" not in str(caught.value)


def test_wandb_without_a_key_is_refused(
    config_of: Config, run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match=r"has no API key here: .* WANDB_MODE=offline"):
        check_trackers(config_of("tracking.wandb=true"), run)
