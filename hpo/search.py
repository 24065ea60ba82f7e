"""run_search: study, decisions, Ray Tune, retraining and delivery put together."""

import contextlib
import logging
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.cluster import TrialResources, cluster_totals, connected, trial_resources
from hpo.config import SearchConfig, differences
from hpo.decisions import Decisions
from hpo.deliver import deliver
from hpo.errors import RunError, RunInterrupted, StudyError
from hpo.progress import SearchObserver
from hpo.report import write_report
from hpo.retrain import retrain_config, retrain_epochs, retrain_epochs_on_cluster
from hpo.run_folder import RunFolder
from hpo.search_space import Params, apply_params, default_params
from hpo.study import (
    SearchStudy,
    TrialSummary,
    storage_exists,
    with_absolute_path,
    without_password,
)
from sgformer.errors import ConfigError

if TYPE_CHECKING:
    from hpo.searcher import StudySearcher
    from sgformer.decoded_images import ImageData


@dataclass(frozen=True)
class SearchResult:
    """A finished run: its folder, the winning trial, and all trials."""

    run: RunFolder
    winner: TrialSummary
    trials: tuple[TrialSummary, ...]


def run_search(
    config: SearchConfig,
    run: RunFolder,
    observer: SearchObserver,
    *,
    storage: str | None = None,
    ray_address: str | None = None,
    resume: bool = False,
) -> SearchResult:
    """Searches, retrains the winner, exports and proves it; continues what is there on resume.

    Args:
        config: What to search.
        run: Where to; must be reachable under the same path from every node of a cluster.
        observer: Hears of every event.
        storage: Optuna storage URL; None: a SQLite file in the run folder.
        ray_address: HOST:PORT of a cluster; None: a Ray of its own on this machine.
        resume: Continue the run if it exists.

    Raises:
        InputError: Something the user gave is wrong; nothing was started.
        RunError: The search failed, or was interrupted.
    """
    from sgformer.decoded_images import load_image_data

    run.make()
    with run.locked():
        study = open_study(config, run, storage, resume=resume)
        _tell_earlier_trials(study, observer)
        if run.is_complete and not _is_unfinished(study, config):
            return _result(study, run)
        observer.phase("decoding images")
        data = load_image_data(config.train.data, observer.step)
        if data.unreadable:
            names = ", ".join(str(path) for path in data.unreadable[:10])
            observer.note(f"{len(data.unreadable)} unreadable images are passed over: {names}")
        if _is_unfinished(study, config):
            observer.phase("starting Ray")
            with connected(ray_address):
                resources = trial_resources(config.resources, *cluster_totals())
                run_trials(config, run, study, resources, observer)
                if ray_address:
                    _retrain(config, run, study, data, observer, resources)
        if not ray_address:
            _retrain(config, run, study, data, observer, None)
        observer.phase("writing the report")
        write_report(run, config, study)
        return _result(study, run)


def open_study(
    config: SearchConfig, run: RunFolder, storage: str | None, *, resume: bool
) -> SearchStudy:
    """The run's study, new or continued; search.yaml is written.

    Raises:
        StudyError: The name is taken and `resume` is not set, or the storage is unusable.
        ConfigError: A resumed search differs in what would make trials incomparable.
    """
    url = run.storage_url(config, storage)
    if storage:
        kept = without_password(with_absolute_path(storage))
        study_config = config.study.model_copy(update={"storage": kept})
        config = config.model_copy(update={"study": study_config})
    known = run.search_file.exists()
    if known and not resume:
        raise StudyError(
            f"study {config.study.name!r} exists already: {run.path}; continue it with --resume, "
            "or choose another --study-name"
        )
    if known and (changed := differences(run.load_config(), config)):
        raise ConfigError(
            "a resumed search cannot change what its trials have in common; changed since "
            f"{run.search_file} was written:\n" + "\n".join(f"  {line}" for line in changed)
        )
    study = None
    if resume and storage_exists(url):
        with contextlib.suppress(StudyError):
            study = SearchStudy.open(url, config.study, config.space)
    if study is None:
        default = default_params(config.train, config.space)
        study = SearchStudy.create(url, config.study, config.space, default)
    run.save_config(config)
    return study


def run_trials(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    resources: TrialResources,
    observer: SearchObserver,
) -> None:
    """Runs trials on the connected Ray until the study has them all.

    Raises:
        RunInterrupted: A signal came; what ran is continued on a resume.
        RunError: The first trials all failed alike, or the search itself did.
    """
    # Ray Tune reads these when it is imported or started.
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_MAX_PENDING_TRIALS_PG": str(resources.num_slots),
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    from ray import tune

    from hpo.scheduler import StudyScheduler
    from hpo.searcher import StudySearcher
    from hpo.trial import TrialTrainable

    def trial_config(number: int, params: Params) -> dict[str, Any]:
        train = apply_params(config.train, params, f"trial {number}")
        if resources.gpus == 0:
            # Ray may leave GPUs visible to a process that was given none.
            train = train.model_copy(update={"device": "cpu"})
        return {
            "number": number,
            "train": train.model_dump_json(),
            "run_dir": str(run.path.absolute()),
            "num_threads": resources.cpus,
        }

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    observer.phase(f"starting {resources.num_slots} workers")
    decisions = Decisions(config, study, resources.num_slots, observer)
    searcher = StudySearcher(decisions, trial_config)
    with (
        tempfile.TemporaryDirectory(prefix="sgformer-hpo-") as scratch,
        _stopping_on_signals() as stop,
    ):
        tuner = tune.Tuner(
            tune.with_resources(TrialTrainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=searcher,
                scheduler=StudyScheduler(decisions, searcher),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name=config.study.name,
                storage_path=scratch,
                stop=_stopper(searcher, decisions, stop),
                # Trials keep their own checkpoints, in the run folder.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=config.study.max_retries),
                verbose=0,
            ),
        )
        tuner.fit()
    if searcher.failure is not None:
        raise RunError(f"the search failed: {searcher.failure}") from searcher.failure
    if decisions.broken:
        raise RunError(f"the first trials all failed for the same reason: {decisions.broken}")
    if stop():
        raise RunInterrupted(
            f"interrupted; continue with --resume (study {config.study.name!r}, {run.path})"
        )


def _stopper(searcher: "StudySearcher", decisions: Decisions, stop: Callable[[], bool]) -> Any:
    from ray.tune import Stopper

    class StopEarly(Stopper):
        """Ends the whole search on a signal, or when going on makes no sense."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return stop() or searcher.failure is not None or decisions.broken is not None

    return StopEarly()


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGINT or SIGTERM came; a second one kills."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def receive(number: int, _frame: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for name in (signal.SIGINT, signal.SIGTERM):
        previous[name] = signal.signal(name, receive)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _retrain(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    data: "ImageData",
    observer: SearchObserver,
    resources: TrialResources | None,
) -> None:
    """Retrains and delivers the winner, on the cluster if resources are given."""
    winner = study.best_trial()
    if winner is None:
        raise RunError(
            f"no trial of study {config.study.name!r} ran to its end, so there is no winner; see "
            f"`status {run.path}`"
        )
    delivered = run.delivered_fingerprint()
    if delivered != retrain_config(config, winner.params).fingerprint():
        retrain_and_deliver(config, run, winner, data, observer, resources)


def retrain_and_deliver(
    config: SearchConfig,
    run: RunFolder,
    trial: TrialSummary,
    data: "ImageData",
    observer: SearchObserver,
    resources: TrialResources | None = None,
) -> None:
    """Trains a trial's configuration at full length and puts it into best/."""
    import shutil

    train = retrain_config(config, trial.params)
    observer.phase(f"retraining trial {trial.number}")
    folder = run.retraining / f"{trial.number}-{train.fingerprint()}"
    if resources is None:
        rows = retrain_epochs(train, folder)
    else:
        rows = retrain_epochs_on_cluster(train, folder, resources)
    for row in rows:
        observer.retrain_epoch(row, train.max_epochs)
    observer.phase("exporting to ONNX and checking it")
    deliver(run, folder / "best.safetensors", data)
    shutil.rmtree(run.retraining)


def _tell_earlier_trials(study: SearchStudy, observer: SearchObserver) -> None:
    best = study.best_trial()
    states = Counter(trial.state for trial in study.trials())
    if states:
        observer.earlier_trials(
            states, None if best is None or best.value is None else (best.number, best.value)
        )


def _is_unfinished(study: SearchStudy, config: SearchConfig) -> bool:
    trials = study.trials()
    return len(trials) < config.study.num_trials or any(t.state == "RUNNING" for t in trials)


def _result(study: SearchStudy, run: RunFolder) -> SearchResult:
    winner = study.best_trial()
    if winner is None:
        raise RunError(f"study of {run.path} has no complete trial")
    return SearchResult(run, winner, study.trials())
