"""Event files of TensorBoard: a folder a trial, with its curve and its params as hparams."""

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import CategoricalParameter, Parameter
from hpo.run_folder import RunFolder
from hpo.study.trial import TrialStatus
from hpo.tracking.tracker import News, Sent, need_package, numbers_of
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.run import Run
    from hpo.tracking.search_end import SearchEnd

OPTION: Final = "--tensorboard"
HAS_ENDED: Final = "_hparams_/session_end_info"


class TensorBoardEvents:
    """Writes RUN/tensorboard/trial-N; an event is on the disk when `send` returns.

    A process writes one file a trial, however often the trial is paused; the next process, after
    a resume, writes another beside it.
    """

    name: str = "TensorBoard"
    option: str = OPTION

    def __init__(self, config: SearchConfig, folder: RunFolder) -> None:
        self._config, self._best = config, f"best_{config.study.metric}"
        self._folder = folder.path / "tensorboard"
        self._files: dict[Path, Path] = {}

    def check(self) -> None:
        need_package("tensorboard", "tensorboard", OPTION)
        RunFolder(self._folder).check_writable()

    def begin(self) -> dict[int, Sent]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self._folder}: {error.strerror}") from None
        folders = {path.name.removeprefix("trial-"): path for path in self._folder.glob("trial-*")}
        if not any(self._folder.glob("events.*")):
            self._write(self._folder, 0, [self._experiment()])
        return {
            int(number): _sent(path, self._config.study.metric)
            for number, path in folders.items()
            if number.isdigit()
        }

    def send(self, number: int, news: News) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        folder = self._folder / f"trial-{number}"
        if folder not in self._files and not any(folder.glob("events.*")):
            self._write(folder, 0, [_start_of(news)])
        for row in news.rows:
            values = numbers_of(row)
            epoch = int(values.pop("epoch"))
            scalars = [Summary.Value(tag=n, simple_value=v) for n, v in values.items()]
            self._write(folder, epoch, scalars)
        if news.end is None:
            return
        ended = [_end_of(news.end.state)]
        if news.end.value is not None:
            ended.append(Summary.Value(tag=self._best, simple_value=news.end.value))
        ended.append(_text("end", f"{news.end.state}: {news.end.reason}"))
        self._write(folder, news.num_epochs, ended)

    def finish(self, end: "SearchEnd", run: "Run") -> None:
        pass

    def close(self) -> None:
        pass

    def _write(self, folder: Path, step: int, values: list[Any]) -> None:
        """Appends an event to this process's file in a folder."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        events = [Event(wall_time=time.time(), step=step, summary=Summary(value=values))]
        if folder not in self._files:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}"
            self._files[folder] = folder / f"{name}.{os.getpid()}.0"
            events.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
        with self._files[folder].open("ab") as file:
            for event in events:
                RecordWriter(file).write(event.SerializeToString())

    def _experiment(self) -> Any:
        """The search space and the metrics, for the HPARAMS tab."""
        from tensorboard.plugins.hparams import summary_v2 as hp

        params = [hp.HParam(name, _domain(one)) for name, one in self._config.space.items()]
        metrics = [hp.Metric(name) for name in (self._best, self._config.study.metric)]
        return hp.hparams_config_pb(params, metrics).value[0]


def _start_of(news: News) -> Any:
    from tensorboard.plugins.hparams import summary_v2 as hp

    params = {name: "none" if value is None else value for name, value in news.params.items()}
    return hp.hparams_pb(params).value[0]


def _end_of(state: str) -> Any:
    """The event that ends a session; TensorBoard's own function for it needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    failed, well = api_pb2.Status.STATUS_FAILURE, api_pb2.Status.STATUS_SUCCESS
    info = plugin_data_pb2.SessionEndInfo(
        status=failed if state == TrialStatus.FAIL else well, end_time_secs=time.time()
    )
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    about = metadata.create_summary_metadata(data)
    return Summary.Value(tag=HAS_ENDED, metadata=about, tensor=metadata.NULL_TENSOR)


def _text(tag: str, text: str) -> Any:
    """A text for the TEXT tab."""
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, text).value[0]


def _domain(parameter: Parameter) -> Any:
    from tensorboard.plugins.hparams import summary_v2 as hp

    if not isinstance(parameter, CategoricalParameter):
        interval = hp.IntInterval if parameter.type == "int" else hp.RealInterval
        return interval(parameter.low, parameter.high)
    choices = list(parameter.choices)
    # TensorBoard takes choices of one type only.
    return hp.Discrete(choices if len(set(map(type, choices))) == 1 else list(map(str, choices)))


def _sent(folder: Path, metric: str) -> Sent:
    """What the event files of a trial hold."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    tags = events.Tags()[SCALARS]
    steps = [event.step for event in events.Scalars(metric)] if metric in tags else []
    has_ended = HAS_ENDED in events.summary_metadata
    return Sent(max(steps, default=0), has_ended)
