"""run_search: from a search file's config to a delivered model."""

import contextlib
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from hpo.config.schema import PAUSING, SearchConfig, differences
from hpo.config.search_space import default_params
from hpo.delivery.deliver import deliver
from hpo.engine.architectures import (
    ArchitectureCosts,
    check_feasible,
    measure_architecture,
    missing_architectures,
)
from hpo.engine.budget import Budget
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError, StudyError
from hpo.execution.attempts import Attempts
from hpo.execution.cluster import TrialResources, cluster_nodes, connected, trial_resources
from hpo.execution.comparison import SearchedImages, compare_finalists
from hpo.execution.retrain import retrain_epochs, retrain_epochs_on_cluster
from hpo.execution.training import Training
from hpo.execution.tuning import run_trials
from hpo.reporting.report import write_report
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstLevel, first_level_text
from hpo.selection.finalists import (
    has_candidates,
    is_settled,
    read_verdict,
    retrain_config,
    training_name,
    winner_of,
    winners_of,
)
from hpo.selection.selection import best_so_far
from hpo.selection.verdict import Verdict
from hpo.study.lease import leased
from hpo.study.storage import storage_exists, with_absolute_path, without_password
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary, num_counted
from hpo.transfer.carry_over import Continuation, carry_over, continuation
from hpo.transfer.warm_start import first_level_of_earlier, warm_start_params
from sgformer.data.image_cache import ImagesId
from sgformer.data.image_data import load_image_data
from sgformer.disk import noticing_full_disk
from sgformer.errors import ConfigError

SECONDS_BEFORE_RAY: Final = 0.5
Result = TypeVar("Result")


@dataclass(frozen=True)
class SearchResult:
    """A finished run: its folder, who won and why, the trial that best/ is of, and all trials."""

    run: RunFolder
    winner: TrialSummary
    verdict: Verdict | None
    delivered: int
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
        storage: Optuna storage URL; None: the run's own, a SQLite file in its folder if new.
        ray_address: HOST:PORT of a cluster; None: a Ray of its own on this machine.
        resume: Continue the run if it exists; where its space has changed, in a new study
            beside it, NAME-2, that its trials are carried over to.

    Raises:
        InputError: Something the user gave is wrong; no trial was started, no study made.
        RunError: The search failed, or was interrupted.
        DiskFullError: The run's disk is full; it can be continued.
    """
    config = _with_storage(config, config.study.storage)  # continuation compares it
    now = continuation(config, run) if resume else Continuation(config, run)
    config, run = now.config, now.run
    run.make()
    with run.locked(), noticing_full_disk(run.path), contextlib.ExitStack() as lease:
        config = check_continuation(config, run, storage, resume=resume)
        study = find_study(config, run, storage, resume=resume)
        if study is not None:
            _tell_earlier_trials(config, study, observer)
            if run.is_complete and not _is_unfinished(study, config) and _delivers_as(run, config):
                return _result(study, run, config)
            lease.enter_context(leased(study, observer.note))
        warm_start = () if study is not None else warm_start_params(config, storage)
        first_level = None if study is not None else first_level_of_earlier(config, storage)
        # A Ray of our own is gone before the winner is trained, unless a group trains it.
        on_cluster = bool(ray_address) or config.resources.workers_per_trial > 1
        is_moving = now.predecessor is not None  # a crash may have left it half way
        is_over = threading.Event()
        lease.callback(is_over.set)
        decoding = _start(lambda: _decode(config, observer, is_over))
        _start(lambda: _import_decisions(config))
        if on_cluster or study is None or is_moving or _is_unfinished(study, config):
            with contextlib.suppress(TimeoutError):  # what is wrong with them is soon known
                decoding.result(SECONDS_BEFORE_RAY)
                observer.phase("starting Ray" if ray_address is None else "connecting to Ray")
            with connected(ray_address):
                images = decoding.result()
                _refuse_other_images(study, images)
                resources = trial_resources(config.resources, cluster_nodes())
                if study is None:
                    study = create_study(config, run, storage, images.facts, first_level)
                    study.metadata.warm_start = warm_start
                    _tell_first_level(config, first_level, observer)
                    lease.enter_context(leased(study, observer.note))
                if now.predecessor is not None:
                    _carry_over(study, now, storage, images, observer)
                _measure_architectures(config, study, images, observer)
                study.enqueue_first_trials(default_params(config.train, config.space))
                run.save_config(config)
                _run_missing_trials(config, run, study, images, resources, observer)
                if on_cluster:
                    _retrain_winner(config, run, study, observer, images.id, resources)
        images = decoding.result()
        _refuse_other_images(study, images)
        if not on_cluster:
            _retrain_winner(config, run, study, observer, images.id)
        run.save_config(config)
        observer.phase("writing the report")
        write_report(run, config, study)
        return _result(study, run, config)


def check_continuation(
    config: SearchConfig, run: RunFolder, storage: str | None, *, resume: bool
) -> SearchConfig:
    """The config with the storage that the run has, or will have; nothing is written.

    Raises:
        StudyError: The name is taken and `resume` is not set.
        ConfigError: A resumed search differs in what would make its trials incomparable.
    """
    own = config.study.storage
    config = _with_storage(config, without_password(storage) if storage else own)
    if not run.search_file.exists():
        return config
    if not resume:
        raise StudyError(
            f"study {config.study.name!r} exists already: {run.path}; continue it with --resume, "
            "or choose another --study-name"
        )
    known = run.load_config()
    if config.study.storage is None:
        config = _with_storage(config, known.study.storage)
    known = _with_storage(known, known.study.storage)
    _refuse_differences(known, config, str(run.search_file))
    return config


def find_study(
    config: SearchConfig, run: RunFolder, storage: str | None, *, resume: bool
) -> SearchStudy | None:
    """The run's study if it exists.

    Raises:
        StudyError: It exists and `resume` is not set, or the storage cannot be used.
        ConfigError: It was made by a search that differs, or over other images.
    """
    url = run.storage_url(config, storage)
    if not storage_exists(url):
        return None
    study = SearchStudy.find(url, config.study, config.space)
    if study is None:
        return None
    if not resume:
        raise StudyError(
            f"study {config.study.name!r} exists already in {without_password(url)}: continue it "
            "with --resume, or choose another --study-name"
        )
    if study.metadata.search_config is not None:
        known = SearchConfig.model_validate(study.metadata.search_config)
        known = _with_storage(known, known.study.storage)
        _refuse_differences(known, config, f"study {config.study.name!r}")
    return study


def create_study(
    config: SearchConfig,
    run: RunFolder,
    storage: str | None,
    images: dict[str, Any],
    first_level: FirstLevel | None = None,
) -> SearchStudy:
    """A new study for the run; `first_level` is what earlier studies say.

    Raises:
        StudyError: The folder holds checkpoints of trials that no study knows.
    """
    if run.trials.is_dir() and any(run.trials.iterdir()):
        raise StudyError(
            f"{run.trials} holds checkpoints of a study that is gone; move them away, or choose "
            "another --study-name"
        )
    study = SearchStudy.create(run.storage_url(config, storage), config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    study.metadata.images = images
    if first_level is not None:
        study.metadata.first_levels = [first_level.model_dump(mode="json")]
    return study


def _with_storage(config: SearchConfig, storage: str | None) -> SearchConfig:
    """The storage's file, if it is one, named for any working folder."""
    url = None if storage is None else with_absolute_path(storage)
    study = config.study.model_copy(update={"storage": url})
    return config.model_copy(update={"study": study})


def _refuse_differences(known: SearchConfig, config: SearchConfig, where: str) -> None:
    changed = differences(known, config)
    # A space may change, but not with something else.
    changed = tuple(line for line in changed if not line.startswith("space.")) or changed
    if changed:
        raise ConfigError(
            "a resumed search cannot change what its trials have in common; changed since "
            f"{where} was written:\n" + "\n".join(f"  {line}" for line in changed)
        )


def _carry_over(
    study: SearchStudy,
    now: Continuation,
    storage: str | None,
    images: SearchedImages,
    observer: SearchObserver,
) -> None:
    """Fills a new study with the predecessor's trials that lie in its space."""
    assert now.predecessor is not None
    was = now.predecessor.load_config()
    url = now.predecessor.storage_url(was, storage)
    old = SearchStudy.open(url, was.study, was.space)
    _refuse_other_images(old, images)
    with leased(old, observer.note):
        num_carried, num_trials = carry_over(old, study, was, now)
    observer.note(
        f"the space has changed: study {now.config.study.name!r} goes on, with {num_carried} of "
        f"the {num_trials} trials of {was.study.name!r}; the others lie outside it"
    )


def _run_missing_trials(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    images: SearchedImages,
    resources: TrialResources,
    observer: SearchObserver,
) -> None:
    """Of the search, and then of its finalists, if it has any."""
    if _has_missing_trials(study, config):
        run_trials(config, run, study, images.id, resources, observer)
    if config.compares_finalists and has_candidates(study.trials()):
        compare_finalists(config, run, study, images, resources, observer)


def _measure_architectures(
    config: SearchConfig, study: SearchStudy, images: SearchedImages, observer: SearchObserver
) -> None:
    """Before trials make this machine busy; a resumed search finds them in its study."""
    if not config.study.costs:
        return
    missing = missing_architectures(config, study.metadata.architectures)
    if missing:
        observer.phase("measuring architectures")
    num_classes = len(images.facts["classes"])
    for done, (name, params) in enumerate(missing.items(), 1):
        costs = measure_architecture(config, params, num_classes)
        study.metadata.architectures = {**study.metadata.architectures, name: costs}
        observer.step(done, len(missing))
    check_feasible(config, study.metadata.architectures)
    default = default_params(config.train, config.space)
    reason = ArchitectureCosts(config, study.metadata.architectures).infeasible(default)
    if reason is not None:
        observer.note(f"the default configuration is not trained: it is infeasible ({reason})")


def _import_decisions(config: SearchConfig) -> None:
    """While Ray starts: SciPy takes most of a second."""
    if config.scheduler.name in PAUSING:
        import hpo.schedulers.freeze_thaw  # noqa: F401


def _start(action: Callable[[], Result]) -> Future[Result]:
    """Begins it in a thread, which an interrupted search does not wait for."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _refuse_other_images(study: SearchStudy | None, images: SearchedImages) -> None:
    """The folder may have moved; what is in it may not have changed."""
    if study is not None and study.metadata.images not in (None, images.facts):
        raise StudyError(
            f"the study was made over other images: {study.metadata.images}, now {images.facts} "
            "(--data-dir); choose another --study-name"
        )


def _decode(
    config: SearchConfig, observer: SearchObserver, is_over: threading.Event
) -> SearchedImages:
    """Fills this machine's cache; says nothing more when the search is over.

    Raises:
        DataError: Too many images cannot be read.
    """
    observer.phase("decoding images")

    def step(done: int, total: int) -> None:
        if not is_over.is_set():
            observer.step(done, total)

    data = load_image_data(config.train.data, step)
    if data.unreadable and not is_over.is_set():
        names = ", ".join(str(path) for path in data.unreadable[:10])
        observer.note(f"{len(data.unreadable)} unreadable images are passed over: {names}")
    counts = {name: len(samples) for name, samples in data.splits.items()}
    facts = {"classes": list(data.classes), **counts, "content": data.images.id.content}
    ratio = counts["val"] / counts["train"] if data.folder.val_is_of_train else None
    return SearchedImages(data.images.id, facts, ratio)


def _retrain_winner(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    observer: SearchObserver,
    images: ImagesId,
    resources: TrialResources | None = None,
) -> None:
    """Retrains and delivers who won or is selected, on the cluster if resources are given."""
    trials = study.trials()
    chosen = winners_of(config, trials, read_verdict(config, study, trials))
    if not chosen:
        within = " within the constraints" if config.study.constraints else ""
        budget = Budget.of_study(config, study)
        taken = f" (taken: {budget.in_words()})" if budget.limits else ""
        raise RunError(
            f"no trial of study {config.study.name!r} ran to its end{within}, so there is no "
            f"winner{taken}; see `status {run.path}`; raise budget or "
            "study.num_trials and --resume, or choose another --study-name"
        )
    folders = {trial.number: run.front / str(trial.number) for trial in chosen[1:]}
    folders[chosen[0].number] = run.best
    for trial in chosen:
        folder = folders[trial.number]
        wanted = retrain_config(config, trial.params).fingerprint()
        if run.delivered_fingerprint(folder) == wanted:
            continue
        if folder == run.best or _is_affordable(config, study, trial, observer):
            retrain_and_deliver(config, run, study, trial, observer, images, resources, folder)
    shutil.rmtree(run.retraining, ignore_errors=True)  # of finalists that did not win
    _remove_others(run, tuple(folders.values()))


def _is_affordable(
    config: SearchConfig, study: SearchStudy, trial: TrialSummary, observer: SearchObserver
) -> bool:
    """Whether the budget lets a further trial of the front be retrained; notes it if not."""
    budget = Budget.of_study(config, study)
    if budget.lets_train([trial.number]):
        return True
    observer.note(
        f"trial {trial.number} of the front is not retrained: the budget leaves no room "
        f"({budget.in_words()}); raise it and --resume"
    )
    return False


def _remove_others(run: RunFolder, folders: Sequence[Path]) -> None:
    """What was on the front before better trials were."""
    for path in run.front.glob("*") if run.front.is_dir() else ():
        if path not in folders:
            shutil.rmtree(path)


def retrain_and_deliver(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    trial: TrialSummary,
    observer: SearchObserver,
    images: ImagesId | None = None,
    resources: TrialResources | None = None,
    folder: Path | None = None,
) -> None:
    """Trains a trial's configuration at full length and puts its best epoch into a folder.

    That is best/ unless another is given. Without `images` over whatever the folder of images
    holds; without `resources` in this process.

    Raises:
        RunError: Not one epoch of it gave a model.
    """
    train = retrain_config(config, trial.params)
    observer.phase(f"retraining trial {trial.number}")
    name = training_name(trial.number, train)
    training = Training(train, run.retraining.absolute() / name, images)
    attempts, begin = Attempts(training.folder), time.monotonic()
    # What a finalist's training has taken is known, if its folder is still there.
    num_known = int(study.metadata.fresh_trainings.get(name, {}).get("num_epochs", 0))
    num_known = min(num_known, attempts.count())
    seconds = _retrain(training, observer, resources)
    num_epochs = attempts.count() - num_known
    if num_epochs and seconds:
        num_gpus = 1.0 if resources is None else resources.gpus * resources.num_processes
        study.metadata.add_retraining(trial.number, num_epochs, num_epochs * seconds, num_gpus)
        study.metadata.seconds_searched += time.monotonic() - begin
    checkpoint = training.folder / "best.safetensors"
    if not checkpoint.exists():
        raise RunError(
            f"the retraining of trial {trial.number} diverged in its first epoch; retrain another "
            f"with `retrain {run.path} --trial N`"
        )
    observer.phase("exporting to ONNX and checking it")
    deliver(folder or run.best, checkpoint, images)
    if folder in (None, run.best):
        study.metadata.delivered_trial = trial.number
    shutil.rmtree(run.retraining)


def _retrain(
    training: Training, observer: SearchObserver, resources: TrialResources | None
) -> float:
    """Seconds of an epoch, on average."""
    if resources is None:
        rows = retrain_epochs(training)
    else:
        rows = retrain_epochs_on_cluster(training, resources)
    seconds = []
    for row in rows:
        seconds.append(float(row["seconds"]))
        observer.retrain_epoch(row, training.config.max_epochs)
        if row["val_loss"] != row["val_loss"]:
            observer.note(f"the retraining diverged in epoch {row['epoch']}")
    return statistics.fmean(seconds) if seconds else 0.0


def _tell_earlier_trials(
    config: SearchConfig, study: SearchStudy, observer: SearchObserver
) -> None:
    trials = study.trials()
    best = best_so_far(trials, config)
    if trials:
        observer.earlier_trials(
            Counter(trial.outcome for trial in trials),
            None if best is None else (best[0].number, best[1]),
            sum(trial.num_epochs for trial in trials),
        )


def _tell_first_level(
    config: SearchConfig, chosen: FirstLevel | None, observer: SearchObserver
) -> None:
    if chosen is not None:
        observer.note(f"first decision at {first_level_text(config, (chosen,))}")


def _is_unfinished(study: SearchStudy, config: SearchConfig) -> bool:
    """Whether trials, or finalists, are yet to be trained."""
    if _has_missing_trials(study, config):
        return True
    trials = study.trials()
    return has_candidates(trials) and not is_settled(config, study, trials)


def _has_missing_trials(study: SearchStudy, config: SearchConfig) -> bool:
    trials = study.trials()
    if any(trial.state == "RUNNING" for trial in trials):
        return True
    return (
        num_counted(trials) < config.study.num_trials
        and study.metadata.limits_reached != config.limits
    )


def _delivers_as(run: RunFolder, config: SearchConfig) -> bool:
    """Whether the run was delivered by the same `select`; a front as far as limits allow, too."""
    known, select = run.load_config(), config.study.select
    return known.study.select == select and (select != "front" or known.limits == config.limits)


def _result(study: SearchStudy, run: RunFolder, config: SearchConfig) -> SearchResult:
    trials = study.trials()
    verdict = read_verdict(config, study, trials)
    winner = winner_of(config, trials, verdict)
    if winner is None:
        raise RunError(f"study of {run.path} has no complete trial")
    delivered = study.metadata.delivered_trial
    delivered = winner.number if delivered is None else delivered
    return SearchResult(run, winner, verdict, delivered, trials)
