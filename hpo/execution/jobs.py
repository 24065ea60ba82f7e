"""Jobs of a Ray cluster: sends searches, and lists, follows and stops them, by Ray's Jobs API."""

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpo.errors import ClusterError, RunError
from hpo.execution.head import ADDRESS_VARIABLE, checked_address, probe
from hpo.execution.submission import SECONDS_TO_STOP, Submission, job_id

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

RUN_KEY: Final = "run"  # of a job's metadata: the search's run folder, on the nodes
SECONDS_BETWEEN_LOOKS: Final = 1.0
SECONDS_OF_TRIES: Final = 30.0  # for how long a lost connection is tried again
SECONDS_OF_SILENCE: Final = 300.0  # without a line, a connection is made anew: it may be dead
WHERE_TOKENS_ARE: Final = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


@dataclass(frozen=True)
class Job:
    """A job of a cluster, as Ray has recorded it.

    Attributes:
        id: Its id, which Ray calls the submission id.
        status: pending, running, stopped, succeeded or failed.
        run: The run folder of its search, on the nodes; None: it is no search of ours.
        begun: When it was sent.
        ended: When it ended; None: it has not.
        message: What Ray says of the status; of a failed job, the end of its log.
    """

    id: str
    status: str
    run: str | None
    begun: datetime | None
    ended: datetime | None
    message: str

    @property
    def is_over(self) -> bool:
        return self.status in ("stopped", "succeeded", "failed")

    @property
    def last_error(self) -> str:
        """The message's last line that begins with 'error', else its last line."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")]
        return (errors or lines or ["Ray gives no reason"])[-1].removeprefix("error: ")


@dataclass
class _PassedOn:
    """How much of a log has been passed on: characters, and whether that is all of it."""

    num_characters: int = 0
    is_all: bool = False


class JobServer:
    """The Jobs API of a cluster's head. Its methods raise ClusterError if it stops answering."""

    def __init__(self, address: str, *, insecure: bool = False) -> None:
        """Connects, within seconds.

        Args:
            address: URL of the head's dashboard, such as http://10.0.0.1:8265.
            insecure: Whether a head beyond this machine may be one that asks for no token.

        Raises:
            ClusterError: It is no such URL, no Ray dashboard answers there, or it refuses the
                token of this machine; or Ray's Jobs API is not installed here.
        """
        if find_spec("aiohttp") is None:
            raise ClusterError(
                "Ray's Jobs API is not installed here: pip install -c constraints.txt '.[cluster]'"
            )
        self.address = checked_address(address)
        probe(self.address, insecure=insecure)
        os.environ[ADDRESS_VARIABLE] = self.address  # Ray prefers it to what it is passed
        from ray.job_submission import JobSubmissionClient

        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.WARNING)  # Ray tells of every package that it sends
        with self._one_message():
            self._client = JobSubmissionClient(self.address)

    def submit(self, submission: Submission) -> str:
        """Sends a search; returns the job's id.

        Raises:
            ClusterError: The cluster does not take it, or has another Ray than the pins.
        """
        if submission.pins is not None:
            self._check_version()
        with tempfile.TemporaryDirectory() as temporary, self._one_message():
            folder = Path(temporary) / "sent"
            submission.write(folder)
            job = self._client.submit_job(
                entrypoint=submission.entrypoint,
                submission_id=job_id(submission.study_name, datetime.now()),
                runtime_env=submission.runtime_env | {"working_dir": str(folder)},
                metadata={RUN_KEY: str(submission.run_dir)},
            )
        return str(job)

    def searches(self) -> tuple[Job, ...]:
        """The jobs that are searches of ours, the latest first."""
        with self._one_message():
            jobs = [_as_job(details) for details in self._client.list_jobs()]
        ours = [job for job in jobs if job.run is not None]
        return tuple(sorted(ours, key=lambda job: (str(job.begun), job.id), reverse=True))

    def job(self, job: str) -> Job:
        """The job with this id; raises ClusterError if there is none."""
        with self._one_message(job):
            return _as_job(self._client.get_job_info(job))

    def log(self, job: str) -> str:
        """All of a job's log so far; raises ClusterError if there is no such job."""
        with self._one_message(job):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> Job:
        """Tells a job to stop, and waits until it has saved what is under way.

        Raises:
            ClusterError: There is no such job.
            RunError: The job has not ended in time.
        """
        with self._one_message(job):
            self._client.stop_job(job)
        end = time.monotonic() + SECONDS_TO_STOP + SECONDS_OF_TRIES
        while not (found := self.job(job)).is_over:
            if time.monotonic() > end:
                raise RunError(f"job {job} was told to stop, and is still {found.status}")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return found

    def follow(self, job: str, write: Callable[[str], None]) -> Job:
        """Passes a job's log on, from its beginning, until the job ends; returns the ended job.

        A lost connection, as of a laptop that slept, is made anew.

        Raises:
            ClusterError: There is no such job.
            RunError: The head has not answered, or not known the job, for 30 seconds.
        """
        self.job(job)
        passed_on, lost_at = _PassedOn(), None
        while True:
            asyncio.run(self._tail(job, passed_on, write))
            try:
                found = self.job(job)
            except ClusterError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() > lost_at + SECONDS_OF_TRIES:
                    raise RunError(str(error)) from None
            else:
                lost_at = None
                if found.is_over and passed_on.is_all:
                    return found
            time.sleep(SECONDS_BETWEEN_LOOKS)

    async def _tail(self, job: str, passed_on: "_PassedOn", write: Callable[[str], None]) -> None:
        """Passes on what is left of a log, until the connection or the log ends."""
        import aiohttp

        num_read, now = 0, asyncio.get_running_loop().time
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
            async with asyncio.timeout(SECONDS_OF_SILENCE) as limit:
                async for text in self._client.tail_job_logs(job):  # from the log's beginning
                    limit.reschedule(now() + SECONDS_OF_SILENCE)
                    num_read += len(text)
                    if num_read > passed_on.num_characters:
                        write(text[passed_on.num_characters - num_read :])
                        passed_on.num_characters = num_read
                passed_on.is_all = True

    def _check_version(self) -> None:
        import ray

        there = getattr(self._client, "_server_ray_version", None) or ray.__version__
        if there != ray.__version__:
            raise ClusterError(
                f"the cluster at {self.address} runs Ray {there}, and this machine has "
                f"{ray.__version__}, with which all versions here were tested: install "
                f"ray=={there} here, or give --image-has-it if the nodes have this package"
            )

    @contextlib.contextmanager
    def _one_message(self, job: str | None = None) -> Iterator[None]:
        """Turns the errors of Ray's client into a ClusterError."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            reason = str(error).splitlines()[0].split(". ")[0]
            raise ClusterError(
                f"the cluster at {self.address} asks for a token: {reason} ({WHERE_TOKENS_ARE})"
            ) from None
        except (ConnectionError, requests.RequestException):
            raise ClusterError(
                f"the Ray dashboard at {self.address} no longer answers; if the head is gone, its "
                "jobs are too, and `submit --resume` goes on with a search"
            ) from None
        except RuntimeError as error:
            if job is not None and "status code 404" in str(error):
                raise ClusterError(
                    f"no job {job!r} at {self.address}; `jobs list` names the searches there. A "
                    "new head knows no former jobs: `submit --resume` goes on with a search"
                ) from None
            reason = str(error).strip().splitlines()[-1]
            raise ClusterError(f"the cluster at {self.address} refuses: {reason}") from None


def _as_job(details: "JobDetails") -> Job:
    return Job(
        id=details.submission_id or details.job_id or "",
        status=str(details.status.value).lower(),
        run=(details.metadata or {}).get(RUN_KEY),
        begun=_time(details.start_time),
        ended=_time(details.end_time),
        message=details.message or "",
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone() if milliseconds else None
