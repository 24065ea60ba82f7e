"""Tells of a search's end: runs the command `on_end`, and sends the JSON to `webhook`."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Final

from hpo.config.tracking import TrackingConfig, masked_webhook
from hpo.tracking.search_end import SearchEnd
from sgformer.errors import ConfigError

SECONDS_OF_COMMAND: Final = 60.0
SECONDS_OF_ANSWER: Final = 5.0
NUM_TRIES: Final = 3
BACKOFF: Final = 0.5  # seconds; doubled for each further try
RETRIED: Final = (429, 500, 502, 503, 504)
MOST_SAID: Final = 300  # characters of a command's error that are shown


def webhook_note(config: TrackingConfig) -> str | None:
    """A text if the URL of the webhook was read from the run's own files; else None."""
    if not config.is_webhook_masked:
        return None
    return (
        f"{config.webhook} is not told of the search's end: the run does not keep what follows "
        "the host; give the URL again (HPO_WEBHOOK, --webhook)"
    )


def check_hooks(config: TrackingConfig) -> None:
    """Raises ConfigError if there is no such command as `on_end`."""
    if not config.on_end:
        return
    try:
        words = shlex.split(config.on_end)
    except ValueError as error:
        raise ConfigError(f"tracking.on_end: {error}, got {config.on_end!r} (--on-end)") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(
            f"tracking.on_end: takes a program of this machine with its arguments, got "
            f"{config.on_end!r}, of which {(words or [''])[0]!r} is not there or cannot be run "
            "(--on-end)"
        )


def tell_the_end(config: TrackingConfig, end: SearchEnd, note: Callable[[str], None]) -> None:
    """Tells those whom the config names of a search's end; what fails becomes a note."""
    if config.webhook and not config.is_webhook_masked:
        failure = _post(config.webhook, end)
        if failure is not None:
            note(f"the webhook {masked_webhook(config.webhook)} was not told: {failure}")
    if config.on_end:
        failure = _run(config.on_end, end)
        if failure is not None:
            note(f"tracking.on_end: {config.on_end!r} {failure}")


def _post(url: str, end: SearchEnd) -> str | None:
    """Posts the JSON; returns why it failed, without the URL, or None."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    again = Retry(
        NUM_TRIES - 1, backoff_factor=BACKOFF, status_forcelist=RETRIED, allowed_methods=None,
        raise_on_status=False, respect_retry_after_header=False,
    )  # fmt: skip
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=again))
        try:
            answer = session.post(
                url, json=end.as_json(), timeout=SECONDS_OF_ANSWER, allow_redirects=False
            )
        except requests.RequestException as error:
            return f"{type(error).__name__}, after {NUM_TRIES} tries"  # its text has the URL
        except ValueError as error:
            return type(error).__name__
    return None if answer.status_code // 100 == 2 else f"it answered {answer.status_code}"


def _run(command: str, end: SearchEnd) -> str | None:
    """Runs the command, without a shell; returns what went wrong, or None."""
    try:
        process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env=os.environ | end.as_variables(), text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    try:
        _, said = process.communicate(json.dumps(end.as_json()) + "\n", SECONDS_OF_COMMAND)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        is_late = isinstance(error, subprocess.TimeoutExpired)
        return f"was ended: {f'it took {SECONDS_OF_COMMAND:g} s' if is_late else 'interrupted'}"
    if process.returncode == 0:
        return None
    said = " ".join(said.split())[-MOST_SAID:]
    return f"ended with exit code {process.returncode}" + (f": {said}" if said else "")
