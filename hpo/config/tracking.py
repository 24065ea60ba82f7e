"""TrackingConfig: where a search is shown beside its study, and who is told of its end."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, PlainSerializer, field_validator

from hpo.config.storage_url import file_of, with_absolute_path, without_password
from sgformer.validation import FrozenConfig

MASK: Final = "***"
WEB: Final = ("http", "https")
SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*:")


def masked_webhook(url: str) -> str:
    """The URL without what may be a secret: a user, a password, and all that follows the host.

    Services like Slack let anyone write who knows the path.
    """
    scheme, separator, rest = url.rpartition("://")
    host, has_more = _host(rest)
    return f"{scheme}{separator}{host}{f'/{MASK}' if has_more else ''}"


def without_credentials(uri: str) -> str:
    """MLflow's URI without a user, a password and options if it is a server's."""
    scheme, separator, rest = uri.partition("://")
    if scheme in WEB:
        path = rest.rpartition("@")[2].partition("/")[2].partition("?")[0]
        return f"{scheme}{separator}{_host(rest)[0]}{f'/{path}' if path else ''}"
    return without_password(uri) if separator else uri


def _host(rest: str) -> tuple[str, bool]:
    """What a URL has between :// and a path, without user and password; and whether it has more.

    A password that holds a slash would end the host early; then all is masked.
    """
    host, _, path = rest.partition("/")
    if ":" in host and "@" in path and "@" not in host:
        return MASK, True
    host, mark, options = host.rpartition("@")[2].partition("?")
    return host, bool(path or mark or options)


# In memory whole; in search.yaml, the study and whatever else is written as JSON masked.
MaskedWebhook = Annotated[str, PlainSerializer(masked_webhook, when_used="json")]
MaskedUri = Annotated[str, PlainSerializer(without_credentials, when_used="json")]


class TrackingConfig(FrozenConfig):
    """Where a search is shown beside its study, and who is told of its end.

    None: off, or in a resumed search as before.

    Attributes:
        tensorboard: Whether event files of each trial are written into the run's folder.
        mlflow: The tracking URI of MLflow, such as http://127.0.0.1:5000; empty: off.
        wandb: Whether each trial is a run of Weights & Biases.
        on_end: The command that is run when the search ends; empty: none.
        webhook: The URL that is told by a POST when the search ends; empty: none.
    """

    tensorboard: bool | None = None
    mlflow: MaskedUri | None = Field(default=None, repr=False)
    wandb: bool | None = None
    on_end: str | None = None
    webhook: MaskedWebhook | None = Field(default=None, repr=False)

    @field_validator("mlflow", "webhook", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"takes a URL, got a value of type {type(value).__name__}")
        return value

    @field_validator("mlflow")
    @classmethod
    def _with_a_host(cls, uri: str | None) -> str | None:
        if uri and uri.partition(":")[0] in WEB and not _has_host(uri):
            raise ValueError(
                "takes a tracking URI of MLflow, such as http://127.0.0.1:5000, "
                f"sqlite:////data/mlflow.db or a folder, got {without_credentials(uri)!r}"
            )
        return uri

    @field_validator("webhook")
    @classmethod
    def _of_the_web(cls, url: str | None) -> str | None:
        if url and not (url.partition(":")[0] in WEB and _has_host(url)):
            raise ValueError(
                f"takes a URL that begins with http:// or https://, got {masked_webhook(url)!r}"
            )
        return url

    @property
    def is_webhook_masked(self) -> bool:
        """Whether the webhook's URL was read from a run's own files, which do not have all."""
        return bool(self.webhook) and str(self.webhook).endswith(f"/{MASK}")

    @property
    def has_secret(self) -> bool:
        """Whether a URL holds what is not written to the run's files."""
        webhook, uri = self.webhook or "", self.mlflow or ""
        return masked_webhook(webhook) != webhook or without_credentials(uri) != uri

    def after(self, former: Self) -> Self:
        """These settings, and where they say nothing, those of the run before."""
        kept = {
            name: getattr(former, name)
            for name in type(self).model_fields
            if getattr(self, name) is None
        }
        return self.model_copy(update=kept)

    @property
    def mlflow_path(self) -> Path | None:
        """The file or folder that MLflow's URI names; None: there is none."""
        uri = self.mlflow
        if not uri or uri.startswith("databricks"):
            return None
        return file_of(uri) if SCHEME.match(uri) else Path(uri)

    def absolute(self) -> Self:
        """The settings with an absolute path, if MLflow's URI names a file or a folder."""
        path = self.mlflow_path
        if not self.mlflow or path is None:
            return self
        is_file = SCHEME.match(self.mlflow) is not None
        made = with_absolute_path(self.mlflow) if is_file else str(path.expanduser().absolute())
        return self.model_copy(update={"mlflow": made})


def _has_host(url: str) -> bool:
    try:
        parts: Any = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
