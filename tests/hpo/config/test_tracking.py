from pathlib import Path

import pytest

from hpo.config.loading import dump_search_config, load_search_config
from hpo.config.tracking import TrackingConfig, masked_webhook, without_credentials
from hpo.run_folder import RunFolder
from sgformer.errors import ConfigError
from sgformer.validation import validate

SLACK = "https://hooks.slack.com/services/T0/B0/secret"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (SLACK, "https://hooks.slack.com/***"),
        ("https://user:secret@host:8443/a", "https://host:8443/***"),
        ("https://user:sec/ret@host", "https://***/***"),
        ("http://host?token=secret", "http://host/***"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://host/", "http://host"),
    ],
)
def test_of_a_webhook_only_the_host_is_shown(url: str, expected: str) -> None:
    assert masked_webhook(url) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://user:secret@host:5000/a", "http://host:5000/a"),
        ("https://user:sec/ret@host/a", "https://***/a"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://u:secret@h/d", "postgresql://u@h/d"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("/data/mlruns", "/data/mlruns"),
        ("databricks", "databricks"),
    ],
)
def test_of_mlflows_uri_credentials_are_left_out(uri: str, expected: str) -> None:
    assert without_credentials(uri) == expected


def test_secrets_are_in_memory_and_in_no_copy(search_file: Path, tmp_path: Path) -> None:
    settings = [f"tracking.webhook={SLACK}", "tracking.mlflow=http://user:secret@host:5000"]
    config, _ = load_search_config(search_file, settings)
    assert config.tracking.webhook == SLACK
    assert config.tracking.mlflow == "http://user:secret@host:5000"
    assert "secret" not in dump_search_config(config) + repr(config)
    assert "secret" not in str(config.model_dump(mode="json"))
    RunFolder(tmp_path).save_config(config)
    copy = RunFolder(tmp_path).load_config().tracking
    assert copy.is_webhook_masked
    assert not config.tracking.is_webhook_masked
    assert config.tracking.after(copy).webhook == SLACK


def test_a_resumed_search_is_shown_where_it_was_unless_told_otherwise() -> None:
    former = TrackingConfig(tensorboard=True, mlflow="http://host", on_end="true")
    after = TrackingConfig(mlflow="", wandb=True).after(former)
    assert after == TrackingConfig(tensorboard=True, mlflow="", wandb=True, on_end="true")


def test_paths_of_mlflow_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = {
        uri: TrackingConfig(mlflow=uri).absolute().mlflow for uri in ("runs", "sqlite:///a.db")
    }
    assert made == {"runs": f"{tmp_path}/runs", "sqlite:///a.db": f"sqlite:///{tmp_path}/a.db"}
    assert TrackingConfig(mlflow="databricks").absolute().mlflow == "databricks"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"webhook": "hooks.slack.com/secret"}, "begins with http:// or https://"),
        ({"webhook": "ftp://host/secret"}, "got 'ftp://host/\\*\\*\\*'"),
        ({"webhook": "http:///secret"}, "begins with http:// or https://"),
        ({"webhook": ["http://secret"]}, "takes a URL, got a value of type list"),
        ({"mlflow": "http://"}, "takes a tracking URI of MLflow, such as"),
        ({"mlflow": "http://user:secret@"}, "takes a tracking URI of MLflow"),
    ],
)
def test_bad_urls_are_refused_without_their_secret(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        validate(TrackingConfig, values, "tiny.yaml")
    assert "secret" not in str(caught.value)
