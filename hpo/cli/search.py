"""The commands that search: demo, search, resize."""

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    DryRun,
    Features,
    Insecure,
    Mlflow,
    OnEnd,
    OutputDir,
    Overrides,
    RayAddress,
    Resume,
    RunDir,
    SearchFile,
    Storage,
    StudyName,
    TensorBoard,
    Texts,
    Wandb,
    Webhook,
    make_display,
    require_writable,
    storage_of,
    with_features,
    with_tracking,
)
from hpo.cli.output import print_json, print_note, print_rows, progress_of_listing
from hpo.cli.profile import PlannedSearch, measured_profile, print_profile, resources_text
from hpo.program import command_line
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.execution.cluster import TrialResources
    from hpo.reporting.rows import Rows
    from hpo.run import Run


def demo(output_dir: OutputDir = Path("runs")) -> None:
    """The whole job on scikit-learn's handwritten digits; two to three minutes on two cores."""
    from hpo.cli.demo import IMAGES_NAME, write_digits
    from hpo.config.loading import load_search_config

    images = output_dir / IMAGES_NAME
    require_writable(output_dir)
    write_digits(images)
    search_file = Path(str(files("search_spaces").joinpath("digits.yaml")))
    config, _ = load_search_config(search_file, data_dir=images)
    _run(config, output_dir, storage=None, ray_address=None, resume=True)


def search(
    search_file: SearchFile,
    data_dir: Annotated[
        Path | None, typer.Option(help="Image folder, tar shards, parquet files or a manifest.")
    ] = None,
    output_dir: Annotated[
        str, typer.Option(help="Where run folders are made; a URL gets the results of ./runs.")
    ] = "runs",
    study_name: StudyName = None,
    storage: Storage = None,
    ray_address: RayAddress = None,
    insecure: Insecure = False,
    features: Features = None,
    texts: Texts = None,
    override: Overrides = None,
    tensorboard: TensorBoard = False,
    mlflow: Mlflow = None,
    wandb: Wandb = False,
    on_end: OnEnd = None,
    webhook: Webhook = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="With --dry-run: train a few steps; print what it costs."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print JSON and nothing else.")
    ] = False,
) -> None:
    """Searches a space, compares the best on fresh seeds, exports the winner to ONNX."""
    from hpo.config.loading import load_search_config
    from hpo.continuation import with_output
    from hpo.execution.cluster import resources_at
    from hpo.execution.latency_node import check_latency_node
    from sgformer.data.image_folder import read_image_folder
    from sgformer.features.table import check_features

    _check_options(dry_run=dry_run, profile=profile, as_json=as_json)
    override = with_features(override, features, texts)
    config, notes = load_search_config(search_file, override, data_dir, study_name)
    config, runs = with_output(config, output_dir)
    config = with_tracking(
        config, tensorboard=tensorboard, mlflow=mlflow, wandb=wandb, on_end=on_end, webhook=webhook
    )
    for note in notes:
        print_note(note)
    _check_addresses(config, storage, ray_address, insecure=insecure)
    check_features(config.train.data)
    folder = read_image_folder(config.train.data, progress_of_listing())
    if dry_run:
        _refuse_what_the_run_would(config, runs, storage, resume=resume)
        planned = PlannedSearch(config, folder, ray_address, storage)
        _dry_run(planned, profile=profile, as_json=as_json)
        return
    if not ray_address:
        resources_at(config.resources, None)
        check_latency_node(config.resources.latency_node, None)
    require_writable(runs)
    _run(config, runs, storage, ray_address, insecure=insecure, resume=resume)


def resize(
    run_dir: RunDir,
    slots: Annotated[int, typer.Option(min=1, help="Trials at a time, as far as they fit.")],
) -> None:
    """Gives slots of a search that runs back to the cluster, or takes more."""
    from hpo.errors import StudyError
    from hpo.run_folder import RunFolder

    run = RunFolder(run_dir)
    run.load_config()
    if not run.is_locked(print_note):
        raise StudyError(
            f"no search runs over {run_dir}; resources.max_concurrent_trials sets the number of "
            "its slots when it goes on (--set, --resume)"
        )
    run.ask_for_slots(slots)
    print_rows({"asked for": f"{slots} trials at a time, until the search ends"})


def _run(
    config: "SearchConfig",
    output_dir: Path,
    storage: str | None,
    ray_address: str | None,
    *,
    insecure: bool = False,
    resume: bool,
) -> None:
    from hpo.execution.interruption import hear_signals_to_the_end
    from hpo.run_folder import RunFolder
    from hpo.search import run_search

    hear_signals_to_the_end()
    storage = storage_of(RunFolder(output_dir / config.study.name), storage)
    with make_display(config) as display:
        run = run_search(
            config, output_dir, display,
            storage=storage, ray_address=ray_address, insecure=insecure, resume=resume,
        )  # fmt: skip
    print_rows(_result_rows(run))


def _check_options(*, dry_run: bool, profile: bool, as_json: bool) -> None:
    """Raises InputError for options that need --dry-run, where it is not given."""
    if profile and not dry_run:
        raise InputError(
            "--profile: measures what a search would cost and starts none; give --dry-run, too"
        )
    if as_json and not dry_run:
        raise InputError(
            "--json: prints what a search would do; give --dry-run, too, or ask a search that "
            "runs by `watch RUN --json` or `status RUN --json`"
        )


def _check_addresses(
    config: "SearchConfig", storage: str | None, ray_address: str | None, *, insecure: bool
) -> None:
    """Raises InputError if the storage or the cluster cannot be used."""
    from hpo.execution.cluster_access import check_address
    from hpo.study.storage import check_storage_url

    for url in filter(None, (storage, config.study.storage)):
        check_storage_url(url)
    if ray_address:
        check_address(ray_address, insecure=insecure)


def _refuse_what_the_run_would(
    config: "SearchConfig", output_dir: Path, storage: str | None, *, resume: bool
) -> None:
    """Raises InputError for an output folder or a study with which the search would not start."""
    from hpo.run_folder import RunFolder
    from hpo.search import check_start

    RunFolder(output_dir).check_writable()
    storage = storage_of(RunFolder(output_dir / config.study.name), storage)
    check_start(config, output_dir, storage, resume=resume)


def _dry_run(search: PlannedSearch, *, profile: bool, as_json: bool) -> None:
    """Prints what the search would do, and, if it is asked for, what that would cost."""
    from hpo.execution.cluster import resources_at
    from hpo.execution.latency_node import check_latency_node

    resources = resources_at(search.config.resources, search.ray_address)
    check_latency_node(search.config.resources.latency_node, search.ray_address)
    if as_json:
        measured = None
        if profile:
            found = measured_profile(search, resources, lambda _costs, _resources: None)
            measured = found.as_json(search.config)
        print_json(_plan_values(search, resources) | {"profile": measured})
        return
    for note in search.folder.notes:
        print_note(note)
    _print_plan(search, resources)
    if profile:
        print_profile(search, resources)


def _result_rows(run: "Run") -> "Rows":
    """The rows that a finished search prints: its results, and the paths of its files."""
    from collections import Counter

    from hpo.reporting.health import health_cards, health_rows
    from hpo.reporting.rows import (
        copied_rows,
        counts_text,
        delivery_rows,
        front_rows,
        objectives_text,
        params_rows,
        verdict_rows,
    )
    from hpo.reporting.searched import Searched

    winner, delivered, config = run.winner, run.delivered, run.config
    assert winner is not None  # else run_search would have failed
    assert delivered is not None
    params = params_rows(winner.params)
    rows = {"trials": counts_text(Counter(trial.outcome for trial in run.trials))}
    if run.verdict is not None:
        rows |= verdict_rows(run.verdict, params)
    else:
        rows |= {"winner": f"trial {winner.number}, {objectives_text(winner, config)}", **params}
        default = next((t for t in run.trials if t.number == 0), None)
        if default is not None and default.value is not None and default.number != winner.number:
            rows["default"] = f"trial 0, {objectives_text(default, config)}"
    if delivered.number != winner.number:
        rows["in best/"] = f"trial {delivered.number}, by `retrain --trial`"
    rows |= front_rows(run.front, config) | delivery_rows(run.folder, run.config.study.metric)
    rows |= health_rows(health_cards(Searched.of(config, run.study, run.trials, run.verdict)))
    return (
        rows
        | copied_rows(config)
        | {
            "report": str(run.folder.report),
            "leaderboard": str(run.folder.leaderboard),
            "dashboard": command_line("dashboard", run.folder.path),
        }
    )


def _plan_values(search: PlannedSearch, resources: "TrialResources") -> dict[str, Any]:
    """What the search would do, as plain values."""
    from hpo.run_teachers import find_teachers
    from hpo.run_weights import find_weights
    from hpo.transfer.warm_start import warm_start_params

    config, folder = search.config, search.folder
    takes = ("cpus", "gpus", "num_processes", "num_slots")
    return {
        "config": config.model_dump(mode="json"),
        "images": {name: len(images) for name, images in folder.splits.items()},
        "num_classes": len(folder.classes),
        "a_trial_takes": {name: getattr(resources, name) for name in takes},
        "weights": [one.in_words() for one in find_weights(config)],
        "teacher": [one.in_words() for one in find_teachers(config)],
        "num_tried_early": len(warm_start_params(config, search.storage)),
        "num_finalist_trainings": config.num_fresh_trainings * config.compares_finalists,
        "notes": list(folder.notes),
    }


def _print_plan(search: PlannedSearch, resources: "TrialResources") -> None:
    from hpo.config.loading import dump_search_config
    from hpo.run_teachers import find_teachers
    from hpo.run_weights import find_weights

    config, folder = search.config, search.folder
    begin = {}
    if config.study.warm_start:
        from hpo.transfer.warm_start import warm_start_params

        num_earlier = len(warm_start_params(config, search.storage))
        begin["tried early"] = f"{num_earlier} configurations of earlier studies"
    found = [one.in_words() for one in find_weights(config)]
    weights = {"weights": "; ".join(found)} if found else {}
    if taught := [one.in_words() for one in find_teachers(config)]:
        weights["teacher"] = "; ".join(taught)
    sys.stdout.write(dump_search_config(config))
    counts = ", ".join(f"{len(images)} {name}" for name, images in folder.splits.items())
    print_rows(
        {
            "images": f"{counts} in {len(folder.classes)} classes",
            "a trial takes": resources_text(resources, config.resources),
            **weights,
            **begin,
            "finalists": _finalists_plan(config),
            "where": search.ray_address or "a Ray on this machine",
        }
    )


def _finalists_plan(config: "SearchConfig") -> str:
    top_k, seeds = config.retrain.top_k, config.retrain.seeds
    if config.study.has_several_objectives:
        return (
            f"none: with several objectives study.select, {config.study.select}, says what is "
            "delivered, and retrain.seeds has no effect"
        )
    if not seeds:
        return "none: the best trial is the winner (retrain.seeds)"
    max_epochs = config.retrain.max_epochs or config.train.max_epochs
    share = config.retrain.max_share
    most = f", for {share:g} of the trials' cost at most (retrain.max_share)" if share else ""
    return (
        f"the best {top_k} and the default, each trained on {seeds} fresh seed(s): up to "
        f"{(top_k + 1) * seeds} trainings of {max_epochs} epochs{most}"
    )
