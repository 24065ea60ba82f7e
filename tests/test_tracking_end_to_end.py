"""A search that is interrupted and resumed, in all trackers at once, with a real Ray."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Background, load_trials, num_epochs_reported, run
from optuna.trial import TrialState
from searches import search_values
from trackers import MlflowServer, WebhookServer, tensorboard_steps, wandb_steps

SECRET = "T0-secret-path"
ON_END = """#!/bin/sh
cat > {folder}/told.json
echo "$HPO_END_STATE $HPO_END_STUDY" >> {folder}/states
"""


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def webhook() -> Iterator[WebhookServer]:
    server = WebhookServer()
    yield server
    server.stop()


def test_trackers_have_each_epoch_once_after_an_interruption(
    image_folder: Path,
    cache_dir: Path,
    tmp_path: Path,
    mlflow_server: MlflowServer,
    webhook: WebhookServer,
) -> None:
    import yaml

    values = search_values(image_folder, cache_dir)
    values["scheduler"]["name"] = "asha_promotion"  # trials are paused
    script = tmp_path / "on_end.sh"
    script.write_text(ON_END.format(folder=tmp_path))
    script.chmod(0o755)
    values["tracking"] = {
        "tensorboard": True,
        "mlflow": mlflow_server.uri,
        "wandb": True,
        "on_end": str(script),
        "webhook": f"{webhook.url}/{SECRET}",
    }
    file, run_dir = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    file.write_text(yaml.safe_dump(values))
    command = ("search", file, "--output-dir", run_dir.parent)
    environment = {"WANDB_MODE": "offline"}
    first = Background(*command, log=tmp_path / "log", environment=environment)
    first.wait_for(lambda: sum(num_epochs_reported(run_dir)) >= 3)
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait() == 1, first.log.read_text()
    second = run(*command, "--resume", **environment)
    log = first.log.read_text() + second.stderr + second.stdout
    assert "does not have all" not in log
    assert "gets nothing" not in log

    trials = load_trials(run_dir)
    curves = {t.number: sorted(t.intermediate_values) for t in trials}
    for number, epochs in curves.items():
        folder = run_dir / "tensorboard" / f"trial-{number}"
        assert tensorboard_steps(folder, "val_top1") == epochs
        assert tensorboard_steps(folder, "val_loss") == epochs
    _check_mlflow(mlflow_server.uri, curves, trials)
    mark = (run_dir / ".mark").read_text()[:16]
    for number, epochs in curves.items():
        assert wandb_steps(run_dir / "wandb", f"{mark}-{number}") == epochs

    assert (tmp_path / "states").read_text().split() == ["interrupted", "tiny", "done", "tiny"]
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["best_folder"] == str(run_dir / "best")
    assert told["report"] == str(run_dir / "report.html")
    assert [path for path, _ in webhook.received] == [f"/{SECRET}"] * 2
    assert webhook.received[-1][1] == told
    texts = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if SECRET.encode() in text] == []
    assert SECRET not in log


def _check_mlflow(uri: str, curves: dict[int, list[int]], trials: list) -> None:
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    tags = {run.data.tags["sgformer.trial"]: run for run in runs}
    assert len(runs) == len(tags) == len(curves) + 1
    parent = tags.pop("search")
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["sgformer.state"] == "done"
    for trial in trials:
        mine = tags[str(trial.number)]
        assert mine.data.tags["mlflow.parentRunId"] == parent.info.run_id
        history = client.get_metric_history(mine.info.run_id, "val_top1")
        assert [metric.step for metric in history] == curves[trial.number]
        assert mine.data.tags["sgformer.state"] == trial.state.name
        assert mine.data.params == {name: str(v) for name, v in trial.params.items()}
        if trial.state == TrialState.COMPLETE:
            assert mine.data.metrics["best_val_top1"] == trial.value
    names = {file.path for file in client.list_artifacts(parent.info.run_id, "best")}
    assert {"best/MODEL_CARD.md", "best/export.json", "best/config.yaml"} <= names
    mlflow.set_tracking_uri(uri)
    signature = mlflow.models.get_model_info(f"runs:/{parent.info.run_id}/model").signature
    assert [one.name for one in signature.inputs.inputs] == ["input"]
    assert signature.inputs.inputs[0].shape == (-1, 3, 32, 32)
