"""Runs of MLflow: one of the search, with the delivered model, and one nested in it a trial."""

import hashlib
import os
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from hpo.config.schema import SearchConfig
from hpo.config.storage_url import has_password
from hpo.config.tracking import WEB, without_credentials
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus
from hpo.tracking.tracker import News, Row, Sent, need_package, numbers_of, parts_of
from sgformer.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

    from hpo.run import Run
    from hpo.tracking.search_end import SearchEnd

OPTION: Final = "--mlflow"
EPOCH: Final = "epoch"  # the last metric that is logged of an epoch: what a run has to resume from
OWNER, TRIAL, STATE = "sgformer.run_id", "sgformer.trial", "sgformer.state"
REASON, MODEL = "sgformer.end_reason", "sgformer.model_sha256"
SEARCH: Final = "search"  # the tag TRIAL of the run of the search
ROWS_A_CALL: Final = 60  # MLflow takes 1000 metrics a call
# MLflow itself would try for minutes. Variables that the user has set are left.
SETTINGS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
STATUS: Final = {TrialStatus.FAIL: "FAILED"}
STATUS_OF_SEARCH: Final = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowRuns:
    """Logs a search to an MLflow server, a database or a folder.

    Tags say which run of MLflow is which trial of which run folder, so a resumed search finds its
    own ones.
    """

    name: str = "MLflow"

    def __init__(self, config: SearchConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._uri = str(config.tracking.mlflow)
        self.option = f"{OPTION} {without_credentials(self._uri)}"
        self._parent = self._experiment = ""
        self._runs: dict[int, str] = {}
        self._states: dict[int, str] = {}  # of trials that have not ended

    def check(self) -> None:
        need_package("mlflow", "mlflow", OPTION)
        shown = without_credentials(self._uri)
        if self._uri.partition(":")[0] not in WEB and has_password(self._uri):
            raise InputError(
                f"{OPTION}: the URI of a database holds a password: leave it out, and use "
                f"PGPASSWORD or an MLflow server, got {shown}"
            )
        try:
            self._client.search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001  MLflow raises what its libraries raise
            said = " ".join(str(error).split())[:300]
            raise InputError(f"MLflow at {shown} cannot be used ({OPTION}): {said}") from None

    def begin(self) -> dict[int, Sent]:
        client, mark = self._client, self._folder.mark()
        self._experiment = self._find_experiment(client)
        found = self._find(client, mark)
        parent = found.pop(SEARCH, None)
        self._parent = parent.info.run_id if parent else self._create(client, SEARCH).info.run_id
        client.update_run(self._parent, status="RUNNING")
        self._runs = {int(trial): run.info.run_id for trial, run in found.items()}
        return {int(trial): _sent(run) for trial, run in found.items()}

    def send(self, number: int, news: News) -> None:
        client = self._client
        run = self._runs.get(number) or self._create_trial(client, number, news)
        for rows in parts_of(news.rows, ROWS_A_CALL):
            client.log_batch(run, metrics=_metrics(rows))
        end = news.end
        state = "paused" if news.is_paused else "running"
        if end is None:
            if self._states.get(number) != state:
                client.set_tag(run, STATE, state)
                self._states[number] = state
            return
        if end.value is not None:
            client.log_metric(run, f"best_{self._config.study.metric}", end.value)
        client.set_tag(run, STATE, end.state)
        client.set_tag(run, REASON, end.reason)
        client.set_terminated(run, STATUS.get(TrialStatus(end.state), "FINISHED"))

    def finish(self, end: "SearchEnd", run: "Run") -> None:
        client = self._client
        num_trials = sum(end.trials.values())
        for name, value in vars(end).items():
            if isinstance(value, (int, float)):
                client.log_metric(self._parent, name, value, step=num_trials)
            elif isinstance(value, str):
                client.set_tag(self._parent, f"sgformer.{name}", value)
        self._log_files(client)
        model = ModelFiles(self._folder.best)
        if model.is_delivered:
            self._log_model(client, model)
        client.set_terminated(self._parent, STATUS_OF_SEARCH[end.state])

    def close(self) -> None:
        pass

    @cached_property
    def _client(self) -> "MlflowClient":
        for name, value in (SETTINGS | _credentials(self._uri)).items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient(without_credentials(self._uri))

    def _find_experiment(self, client: "MlflowClient") -> str:
        """The id of the experiment that the user's variable names, else the study."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._config.study.name
        known = client.get_experiment_by_name(name)
        return str(known.experiment_id if known else client.create_experiment(name))

    def _find(self, client: "MlflowClient", mark: str) -> dict[str, "MlflowRun"]:
        """This run folder's runs of MLflow, by their tag TRIAL."""
        mine, token = f"tags.`{OWNER}` = '{mark}'", None
        found: dict[str, MlflowRun] = {}
        while True:
            page = client.search_runs([self._experiment], mine, max_results=1000, page_token=token)
            found |= {run.data.tags[TRIAL]: run for run in page}
            token = page.token
            if not token:
                return found

    def _create(self, client: "MlflowClient", trial: str, **tags: str) -> "MlflowRun":
        name = self._config.study.name if trial == SEARCH else f"trial-{trial}"
        tags = {OWNER: self._folder.mark(), TRIAL: trial, **tags}
        return client.create_run(self._experiment, tags=tags, run_name=name)

    def _create_trial(self, client: "MlflowClient", number: int, news: News) -> str:
        from mlflow.entities import Param

        run = self._create(client, str(number), **{"mlflow.parentRunId": self._parent})
        self._runs[number] = str(run.info.run_id)
        params = [Param(name, str(value)) for name, value in news.params.items()]
        client.log_batch(run.info.run_id, params=params)
        return self._runs[number]

    def _log_files(self, client: "MlflowClient") -> None:
        """Logs the run's files as artifacts of the run of the search."""
        best = ModelFiles(self._folder.best)
        files = {
            "": (self._folder.search_file, self._folder.report, self._folder.leaderboard),
            "best": (best.config, best.card, best.export_report, best.metrics, best.classes),
        }
        for place, paths in files.items():
            for path in filter(Path.is_file, paths):
                client.log_artifact(self._parent, str(path), place or None)

    def _log_model(self, client: "MlflowClient", model: ModelFiles) -> None:
        """Logs the delivered model with its signature, unless the run has this very file."""
        with model.onnx.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if client.get_run(self._parent).data.tags.get(MODEL) == digest:
            return
        import mlflow
        import mlflow.onnx
        import onnx

        exported = onnx.load(model.onnx)
        mlflow.set_tracking_uri(without_credentials(self._uri))
        with mlflow.start_run(run_id=self._parent):
            mlflow.onnx.log_model(
                exported,
                name="model",
                signature=_signature(exported),
                # Else MLflow loads the model in another process to find out.
                pip_requirements=[f"onnx=={onnx.__version__}", "onnxruntime"],
            )
        client.set_tag(self._parent, MODEL, digest)


def _sent(run: "MlflowRun") -> Sent:
    return Sent(int(run.data.metrics.get(EPOCH, 0)), run.info.status in ("FINISHED", "FAILED"))


def _metrics(rows: "list[Row] | Any") -> "list[Metric]":
    from mlflow.entities import Metric

    now = round(time.time() * 1000)
    return [
        Metric(name, value, now, int(row[EPOCH]))
        for row in rows
        for name, value in sorted(numbers_of(row).items(), key=lambda item: item[0] == EPOCH)
    ]


def _signature(model: Any) -> Any:
    """The names, types and shapes of an ONNX file's inputs and outputs; -1: of any length."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(values: Any) -> Any:
        specs = []
        for value in values:
            tensor = value.type.tensor_type
            shape = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            specs.append(TensorSpec(dtype, tuple(shape), value.name))
        return Schema(specs)

    return ModelSignature(schema(model.graph.input), schema(model.graph.output))


def _credentials(uri: str) -> dict[str, str]:
    """The user and the password of a server's URI, as the variables that MLflow reads."""
    if uri.partition(":")[0] not in WEB:
        return {}
    parts = urlsplit(uri)
    names = {
        "MLFLOW_TRACKING_USERNAME": parts.username,
        "MLFLOW_TRACKING_PASSWORD": parts.password,
    }
    return {name: unquote(value) for name, value in names.items() if value}
