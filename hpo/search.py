"""run_search: runs a whole search, from its config to the delivered model."""

from dataclasses import replace
from pathlib import Path

from hpo.config.resumed import with_common_decode_size
from hpo.config.schema import SearchConfig
from hpo.continuation import check_continuation, find_study, with_output, with_storage
from hpo.delivery.results_copy import check_results_url
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster_access import check_address
from hpo.run import Run
from hpo.run_folder import RunFolder
from hpo.run_store import claim_store
from hpo.search_steps import SearchSteps, under_way
from hpo.tracking.ending import Ending
from hpo.tracking.hooks import check_hooks
from hpo.tracking.tracked_search import check_trackers, make_trackers
from hpo.transfer.carry_over import Continuation, continuation
from sgformer.errors import ConfigError
from sgformer.export.packages import check_packages


def run_search(
    config: SearchConfig,
    output_dir: Path | str,
    observer: SearchObserver | None = None,
    *,
    storage: str | None = None,
    ray_address: str | None = None,
    insecure: bool = False,
    resume: bool = False,
) -> Run:
    """Searches, compares the finalists, retrains the winner, exports it and checks the export.

    `resume` continues a search that was interrupted, or whose limits were raised.

    Args:
        config: The search, as `load_search_config` returns it.
        output_dir: Gets the run's folder, named `config.study.name`. Every node of a cluster
            must reach it under the same path, unless `study.checkpoint_to` is set. A URL, such as
            s3://BUCKET/runs, gets a copy of the results (`study.deliver_to`), and the run works
            in ./runs.
        observer: Is told of every event; None: events are not reported.
        storage: URL of the Optuna storage; None: the config's, or else a file in the run's
            folder.
        ray_address: HOST:PORT of a running Ray cluster; None: a new Ray on this machine.
        insecure: Uses a cluster without token authentication beyond this machine, too.
        resume: Continues the run if it exists. If the space has changed, a new study, NAME-2,
            is made, which takes over the old study's trials.

    Raises:
        InputError: The user's input is wrong; no trial was started.
        RunError: The search failed, or was interrupted.
        DiskFullError: The run's disk is full; the search can be resumed.
        StoreError: The store of the checkpoints is away; the search can be resumed.

    Example:
        ```python
        from hpo import load_search_config, run_search

        config, notes = load_search_config("search_spaces/digits.yaml", data_dir="digits")
        run = run_search(config, "runs", resume=True)
        print(run.winner, run.files.onnx)
        ```
    """
    if ray_address is not None:
        check_address(ray_address, insecure=insecure)
    now = _what_goes_on(config, output_dir, resume=resume)
    now.run.make()
    observer = observer or _Silent()  # type: ignore[abstract]  # SearchObserver's methods do nothing
    with Ending(observer) as ending, under_way(now, observer) as held:
        config = check_continuation(now.config, now.run, storage, resume=resume)
        if now.begins:
            config = with_common_decode_size(config)
        check_results_url(now.run, config)
        check_packages(config.export.formats)
        _refuse_to_carry_over(config, now)
        claim_store(config, now.run)
        search = SearchSteps(replace(now, config=config), observer, storage, held)
        search.find_study(resume=resume)
        if search.is_over:
            _note_what_is_not_tracked(search)
        else:
            held.push(ending.finish_tracking)
            ending.begin(search.config, search.folder)
            _take_all_steps(search, ray_address, ending)
        search.copy_results()
        return search.as_run()


def check_start(
    config: SearchConfig, output_dir: Path | str, storage: str | None = None, *, resume: bool
) -> None:
    """Checks, as `run_search` does, that the study can begin or go on.

    Writes nothing but a small file to each of `study.deliver_to` and `study.checkpoint_to`, which
    it removes.

    Raises:
        InputError: It cannot: it exists and `resume` is not set, or has other settings.
    """
    now = _what_goes_on(config, output_dir, resume=resume)
    config = check_continuation(now.config, now.run, storage, resume=resume)
    check_results_url(now.run, config)
    check_packages(config.export.formats)
    check_hooks(config.tracking)
    check_trackers(config, now.run)
    _refuse_to_carry_over(config, now)
    claim_store(config, now.run, is_trial=True)
    find_study(config, now.run, storage, resume=resume)


def _what_goes_on(config: SearchConfig, output_dir: Path | str, *, resume: bool) -> Continuation:
    """The study that the search begins or continues with, and its run folder."""
    config, output_dir = with_output(config, output_dir)
    config = with_storage(config, config.study.storage)  # absolute, for `continuation`
    folder = RunFolder(output_dir / config.study.name)
    return continuation(config, folder) if resume else Continuation(config, folder)


def _refuse_to_carry_over(config: SearchConfig, now: Continuation) -> None:
    """Raises ConfigError for a changed space of a run whose checkpoints are in a store."""
    if now.predecessor is not None and config.study.checkpoint_to is not None:
        raise ConfigError(
            f"the space differs from that of {now.predecessor.search_file}, and trials whose "
            "checkpoints are in study.checkpoint_to are not carried over; choose another "
            "--study-name, with study.warm_start for what this one has found"
        )


def _note_what_is_not_tracked(search: SearchSteps) -> None:
    """Tells, if trackers are asked for, how to send them a search that is over."""
    trackers = make_trackers(search.now.config, search.folder)
    if asked := " ".join(tracker.option for tracker in trackers):
        search.observer.note(f"the search is over; `track {search.folder.path} {asked}` sends it")


def _take_all_steps(search: SearchSteps, ray_address: str | None, ending: Ending) -> None:
    search.lease_study()
    search.ask_earlier_studies()
    search.keep_weights()
    search.begin_decoding()
    # A Ray that this process started is stopped before the winner is trained, unless a group of
    # processes trains the winner.
    on_cluster = ray_address is not None or search.config.resources.workers_per_trial > 1
    if on_cluster or search.has_trainings_left:
        with search.connected_ray(ray_address):
            search.make_study()
            search.carry_trials_over()
            search.measure_architectures()
            search.enqueue_first_trials()
            search.observer = ending.track(search.as_run())
            search.train_trials()
            search.compare_finalists()
            if on_cluster:
                search.deliver(search.resources)
    else:
        search.observer = ending.track(search.as_run())
    search.take_images()
    if not on_cluster:
        search.deliver(None)
    search.write_results()


class _Silent(SearchObserver):
    """An observer that ignores all events."""
