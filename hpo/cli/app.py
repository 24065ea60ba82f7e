"""The command line: one function a command. The only module that prints.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong.
"""

import json
import logging
import os
import sys
from collections import Counter
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hpo.errors import RunError, RunInterrupted
from sgformer.errors import DiskFullError, ExportError, InputError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpo.config.schema import SearchConfig
    from hpo.config.search_space import Params
    from hpo.reporting.display import Display
    from hpo.run import Run
    from hpo.run_folder import RunFolder
    from hpo.selection.verdict import Verdict
    from hpo.study.study import SearchStudy
    from hpo.study.trial import TrialSummary
    from hpo.transfer.prior_trials import Surrogate
    from sgformer.data.image_folder import ImageFolder

# Heavy modules (Ray, torch, Optuna) are imported inside the commands: --help stays fast.
app = typer.Typer(
    help="Searches hyperparameters of SG-Former image classifiers with Ray Tune and Optuna.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
WIDE = 160
MOST_ROWS = 16

RunDir = Annotated[Path, typer.Argument(help="A run's folder, such as runs/digits.")]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_STORAGE",
        help="Optuna storage URL, or journal:PATH. Default: study.db in the run folder.",
    ),
]
OutputDir = Annotated[Path, typer.Option(help="Where run folders are made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def main() -> None:
    """Runs a command; errors become one message and an exit code."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except RunInterrupted as error:
        from hpo.execution.interruption import ignore_signals

        ignore_signals()
        _fail(str(error), 1)
    except DiskFullError as error:
        _fail(f"{error}; free some, then go on with --resume", 1)
    except (RunError, ExportError, OutOfMemoryError) as error:
        _fail(str(error), 1)
    except Exception:
        logging.getLogger(__name__).exception("this is a bug of the program, please report it")
        sys.exit(1)


@app.command()
def demo(output_dir: OutputDir = Path("runs")) -> None:
    """The whole job on scikit-learn's handwritten digits; two to three minutes on two cores."""
    from hpo.cli.demo import IMAGES_NAME, write_digits
    from hpo.config.loading import load_search_config

    images = output_dir / IMAGES_NAME
    _require_writable(output_dir)
    write_digits(images)
    search_file = Path(str(files("search_spaces").joinpath("digits.yaml")))
    config, _ = load_search_config(search_file, data_dir=images)
    _search(config, output_dir, storage=None, ray_address=None, resume=True)


@app.command()
def search(
    search_file: Annotated[Path, typer.Argument(metavar="SEARCH.yaml")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Image folder: {train,val,test}/<class>/<images>.")
    ] = None,
    output_dir: OutputDir = Path("runs"),
    study_name: Annotated[
        str | None, typer.Option(help="Default: the search file's study.name, or its own name.")
    ] = None,
    storage: Storage = None,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster. Default: this machine.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Replaces a setting; may be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and start nothing.")
    ] = False,
) -> None:
    """Searches a space, compares the best on fresh seeds, exports the winner to ONNX."""
    from hpo.config.loading import load_search_config
    from hpo.execution.cluster import check_address, local_nodes, trial_resources
    from sgformer.data.image_folder import read_image_folder

    config, notes = load_search_config(search_file, override or (), data_dir, study_name)
    for note in notes:
        _stderr().print(f"note: {note}", markup=False, soft_wrap=True)
    for url in filter(None, (storage, config.study.storage)):
        _require_storage(url)
    if ray_address and not dry_run:
        check_address(ray_address)
    folder = read_image_folder(config.train.data)
    if dry_run:
        _print_plan(config, folder, ray_address, storage)
        return
    if not ray_address:
        trial_resources(config.resources, local_nodes(config.resources))
    _require_writable(output_dir)
    _search(config, output_dir, storage, ray_address, resume=resume)


@app.command()
def status(run_dir: RunDir, as_json: AsJson = False, storage: Storage = None) -> None:
    """How far a run is."""
    from hpo.config.schema import PAUSING
    from hpo.selection.selection import best_so_far, objective_values, pareto_front

    run, config, study = _open_run(run_dir, storage)
    from hpo.engine.budget import Budget
    from hpo.schedulers.first_rung import first_level_text, read_first_levels
    from hpo.selection.finalists import comparison_progress, read_verdict
    from hpo.selection.verdict import verdict_values
    from hpo.study.trial import TrialStatus

    trials = study.trials()
    chosen = read_first_levels(study.metadata.first_levels)
    first_level = first_level_text(
        config, chosen, [trial.curve_to(config.train.max_epochs) for trial in trials]
    )
    budget = Budget.of_study(config, study)
    best, verdict = best_so_far(trials, config), read_verdict(config, study, trials)
    counts = Counter(trial.outcome for trial in trials)
    front = pareto_front(trials, config.study)
    running = [t for t in trials if t.state == "RUNNING"]
    if as_json:
        values = {
            "study": config.study.name,
            "num_trials": config.study.num_trials,
            "counts": dict(counts),
            "budget": {limit.name: [budget.taken(limit), limit.total] for limit in budget.limits},
            "first_level": chosen[-1].model_dump() if chosen else None,
            "best": best
            and {"number": best[0].number, "value": best[1], "params": best[0].params},
            "front": [{"number": t.number, **objective_values(t, config.study)} for t in front],
            "running": [{"number": t.number, "epoch": t.num_epochs} for t in running],
            "winner": verdict and verdict_values(verdict),
            "delivered": run.is_delivered,
            "delivered_trial": study.metadata.delivered_trial if run.is_delivered else None,
        }
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
        return
    states = ", ".join(f"{n} {state.lower()}" for state, n in sorted(counts.items()))
    num_started = len(trials) - counts[TrialStatus.INFEASIBLE]
    may_pause = config.scheduler.name in PAUSING
    at_work = "running or paused" if may_pause else "running"
    num_compared = comparison_progress(config, study, trials)
    rows = {
        "study": f"{config.study.name} ({run.path})",
        "trials": f"{num_started} of {config.study.num_trials} started: {states or 'none'}",
        **({"budget": budget.in_words()} if budget.limits else {}),
        **({} if first_level is None else {"first decision": first_level}),
        "best": "none yet"
        if best is None
        else f"{_objectives(best[0], config, best[1])} (trial {best[0].number})",
        **_front_rows(front, config),
        **({} if num_compared is None else {"finalists": _trainings_text(*num_compared)}),
        **({} if verdict is None else _verdict_rows(verdict)),
        **{f"trial {t.number}": f"{at_work}, epoch {t.num_epochs}" for t in running[:MOST_ROWS]},
        **({"": f"and {len(running) - MOST_ROWS} more"} if len(running) > MOST_ROWS else {}),
        "best model": _delivered_text(run, study),
    }
    _print_rows(rows)


@app.command()
def simulate(
    run_dir: RunDir,
    slots: Annotated[int, typer.Option(min=1, max=1000, help="Trials at a time.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="As scheduler.name, such as asha. Default: the run's.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="As study.sampler. Default: the run's, or the scheduler's.")
    ] = None,
    surrogate: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Another run; the model learns its curves as well."),
    ] = None,
    as_json: AsJson = False,
    storage: Storage = None,
) -> None:
    """What another strategy would have made of a run's trainings, on a simulated clock.

    Curves of the study are replayed; what it has not trained, a model of its curves tells, and
    of those of --surrogate whose trainings its space has.
    """
    from hpo.reporting.display import clock_time
    from hpo.simulation.replay import replay

    run, config, study = _open_run(run_dir, storage)
    other = None if surrogate is None else _find_surrogate(run, config, study, surrogate, storage)
    others = () if other is None else other.trials
    result = replay(
        config,
        study.trials(),
        slots,
        scheduler,
        sampler,
        others,
        study.metadata.architectures,
        study.metadata.warm_start or (),
        study.metadata.first_levels,
    )
    if as_json:
        sys.stdout.write(json.dumps(asdict(result), indent=2) + "\n")
        return
    states = ", ".join(f"{n} {state.lower()}" for state, n in sorted(result.states.items()))
    rows = {
        "strategy": f"{result.scheduler} with {result.sampler}, {result.num_slots} at a time",
        "trials": states,
        "epochs": f"{result.num_epochs}, {result.share_recorded:.0%} of them as recorded, "
        "the others predicted",
        "time": f"{clock_time(result.seconds)}, {clock_time(result.slot_seconds)} of training",
        "best": "no trial came to its end"
        if result.best_value is None
        else f"{config.study.metric} {result.best_value:.4f} (trial {result.best_trial})",
    }
    rows |= _params_rows(result.best_params or {})
    if other is not None:
        learnt = f"{len(others)} of the {other.num_trials} trials of study {other.name}"
        rows["surrogate"] = learnt
    _print_rows(rows)


@app.command()
def report(run_dir: RunDir, storage: Storage = None) -> None:
    """Writes leaderboard.csv and report.html of a run as it stands."""
    from hpo.reporting.report import write_report

    run, config, study = _open_run(run_dir, storage)
    write_report(run, config, study)
    _print_rows({"report": str(run.report), "leaderboard": str(run.leaderboard)})


@app.command()
def dashboard(
    run_dir: RunDir,
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    storage: Storage = None,
) -> None:
    """Serves optuna-dashboard at the run's study, on this machine only, until Ctrl-C."""
    from hpo.reporting.dashboard import make_dashboard

    _, config, study = _open_run(run_dir, storage)
    server, address = make_dashboard(study, host, port)
    print(f"study {config.study.name} at {address} (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


@app.command()
def retrain(
    run_dir: RunDir,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Which trial. Default: the winner.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Trains a trial's configuration at full length and puts it into the run's best/."""
    from hpo.delivery.retrain import retrain_and_deliver
    from hpo.reporting.report import write_report
    from hpo.run import Run

    run, config, study = _open_run(run_dir, storage)
    chosen = _choose_trial(study, trial, run, config)
    with run.locked(), _display(config) as display:
        retrain_and_deliver(Run(run, config, study), chosen, display)
        write_report(run, config, study)
    _print_rows(_delivery_rows(run))


@app.command()
def export(run_dir: RunDir) -> None:
    """Writes best/model.onnx and best/export.json anew from best/checkpoint.safetensors."""
    from hpo.delivery.deliver import export as export_best
    from hpo.run_folder import RunFolder

    run = RunFolder(run_dir)
    config = run.load_config()
    if not (run.best / "checkpoint.safetensors").exists():
        raise InputError(
            f"{run.best} has no checkpoint.safetensors yet; `retrain {run_dir}` first"
        )
    with run.locked():
        export_best(run.best, config.train.data.data_dir)
    _print_rows(_delivery_rows(run))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    data_dir: Annotated[Path, typer.Option(help="Image folder.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Metrics of an exported model on a split of an image folder."""
    from hpo.delivery.classify import evaluate_onnx

    metrics = evaluate_onnx(model, data_dir, split)
    if as_json:
        sys.stdout.write(json.dumps(asdict(metrics), indent=2) + "\n")
        return
    _print_rows(
        {
            "split": f"{split} ({metrics.num_images} images)",
            "top-1": f"{metrics.top1:.4f}",
            "top-5": f"{metrics.top5:.4f}",
            "macro F1": f"{metrics.macro_f1:.4f}",
            "loss": f"{metrics.loss:.4f}",
        }
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
) -> None:
    """The likeliest classes of images, by an exported model."""
    from hpo.delivery.classify import load_classifier

    classifier = load_classifier(model)
    for image in images:
        likeliest = list(classifier.predict(image).items())[:3]
        text = ", ".join(f"{name} {probability:.3f}" for name, probability in likeliest)
        sys.stdout.write(f"{image}: {text}\n")


def _search(
    config: "SearchConfig",
    output_dir: Path,
    storage: str | None,
    ray_address: str | None,
    *,
    resume: bool,
) -> None:
    from hpo.run_folder import RunFolder
    from hpo.search import run_search

    run = RunFolder(output_dir / config.study.name)
    storage = _unless_its_own(run, storage)
    with _display(config) as display:
        result = run_search(
            config,
            output_dir,
            display,
            storage=storage,
            ray_address=ray_address,
            resume=resume,
        )
    _print_result(config, result)


def _open_run(run_dir: Path, storage: str | None) -> "tuple[RunFolder, SearchConfig, SearchStudy]":
    from hpo.errors import StudyError
    from hpo.run_folder import RunFolder
    from hpo.study.storage import storage_exists
    from hpo.study.study import SearchStudy

    run = RunFolder(run_dir)
    config = run.load_config()
    url = run.storage_url(config, _unless_its_own(run, storage))
    if not storage_exists(url):
        raise StudyError(f"the study of {run_dir} is gone: no file {url}")
    return run, config, SearchStudy.open(url, config.study, config.space)


def _unless_its_own(run: "RunFolder", storage: str | None) -> str | None:
    """HPO_STORAGE is not for a run whose study is a file in its own folder."""
    is_from_environment = storage is not None and storage == os.environ.get("HPO_STORAGE")
    if not is_from_environment or not run.search_file.exists():
        return storage
    return storage if run.load_config().study.storage is not None else None


def _find_surrogate(
    run: "RunFolder",
    config: "SearchConfig",
    study: "SearchStudy",
    surrogate: Path,
    storage: str | None,
) -> "Surrogate":
    from hpo.run_folder import RunFolder
    from hpo.transfer.prior_trials import find_surrogate

    if surrogate.resolve() == run.path.resolve():
        raise InputError(f"--surrogate: {surrogate} is the run itself; name another run's folder")
    in_database = RunFolder(surrogate).load_config().study.storage is not None
    _, other, other_study = _open_run(surrogate, storage if in_database else None)
    return find_surrogate(config, study, other, other_study)


def _choose_trial(
    study: "SearchStudy", number: int | None, run: "RunFolder", config: "SearchConfig"
) -> Any:
    from hpo.selection.finalists import read_verdict, winner_of

    all_trials = study.trials()
    if number is None:
        verdict = read_verdict(config, study, all_trials)
        winner = winner_of(config, all_trials, verdict)
        if winner is None:
            raise InputError(f"no trial of {run.path} ran to its end; name one with --trial")
        return winner
    trials = {trial.number: trial for trial in all_trials}
    if number not in trials:
        raise InputError(
            f"--trial: no trial {number}; the study has 0 to {max(trials, default=0)}"
        )
    return trials[number]


def _require_writable(output_dir: Path) -> None:
    from hpo.run_folder import RunFolder

    RunFolder(output_dir).make()


def _require_storage(url: str) -> None:
    from hpo.study.storage import check_storage_url

    check_storage_url(url)


def _display(config: "SearchConfig") -> "Display":
    from hpo.reporting.display import LiveDisplay, PlainDisplay

    console = _stderr()
    if console.is_terminal:
        return LiveDisplay(config, console)
    return PlainDisplay(config, lambda line: print(line, file=sys.stderr, flush=True))


def _print_plan(
    config: "SearchConfig", folder: "ImageFolder", ray_address: str | None, storage: str | None
) -> None:
    from hpo.config.loading import dump_search_config

    begin = {}
    if config.study.warm_start:
        from hpo.transfer.warm_start import warm_start_params

        num_earlier = len(warm_start_params(config, storage))
        begin["tried early"] = f"{num_earlier} configurations of earlier studies"
    sys.stdout.write(dump_search_config(config))
    counts = ", ".join(f"{len(images)} {name}" for name, images in folder.splits.items())
    cpus, gpus = config.resources.cpus_per_trial, config.resources.gpus_per_trial
    takes = [
        "1 CPU, or its GPU's share of them" if cpus is None else f"{cpus} CPU",
        "1 GPU where there are any" if gpus is None else f"{gpus:g} GPU",
    ]
    _print_rows(
        {
            "images": f"{counts} in {len(folder.classes)} classes",
            "a trial takes": "; ".join(takes),
            **begin,
            "finalists": _finalists_plan(config),
            "where": ray_address or "a Ray on this machine",
        }
    )


def _objectives(
    trial: "TrialSummary", config: "SearchConfig", value_so_far: float | None = None
) -> str:
    """Such as 'val_top1 0.9700, latency_ms 2.1'; of a trial that has yet to end, its value."""
    from hpo.config.objectives import brief
    from hpo.selection.selection import objective_values

    values = objective_values(trial, config.study)
    metric, value = config.study.metric, values.pop(config.study.metric)
    value = value_so_far if value is None else value
    return ", ".join(
        [f"{metric} {value:.4f}", *(f"{name} {brief(v or 0.0)}" for name, v in values.items())]
    )


def _front_rows(front: "Sequence[TrialSummary]", config: "SearchConfig") -> dict[str, str]:
    """The Pareto front, where there are several objectives."""
    if not config.study.has_several_objectives:
        return {}
    rows = {f"front, trial {t.number}": _objectives(t, config) for t in front[:MOST_ROWS]}
    more = len(front) - MOST_ROWS
    return rows | ({"front": f"and {more} more"} if more > 0 else {})


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
    return (
        f"the best {top_k} and the default, each trained on {seeds} fresh seed(s): up to "
        f"{(top_k + 1) * seeds} trainings of {max_epochs} epochs"
    )


def _print_result(config: "SearchConfig", result: "Run") -> None:
    from hpo.selection.selection import pareto_front

    winner, run, delivered = result.winner, result.folder, result.delivered
    assert winner is not None  # else run_search would have failed
    assert delivered is not None
    counts = Counter(trial.outcome.lower() for trial in result.trials)
    params = _params_rows(winner.params)
    rows = {"trials": ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))}
    if result.verdict is not None:
        rows |= _verdict_rows(result.verdict, params)
    else:
        rows |= {"winner": f"trial {winner.number}, {_objectives(winner, config)}", **params}
        default = next((t for t in result.trials if t.number == 0), None)
        if default is not None and default.value is not None and default.number != winner.number:
            rows["default"] = f"trial 0, {_objectives(default, config)}"
    if delivered.number != winner.number:
        rows["in best/"] = f"trial {delivered.number}, by `retrain --trial`"
    rows |= _front_rows(pareto_front(result.trials, config.study), config)
    rows |= _delivery_rows(run)
    rows |= {
        "report": str(run.report),
        "leaderboard": str(run.leaderboard),
        "dashboard": f"run_search.py dashboard {run.path}",
    }
    _print_rows(rows)


def _delivered_text(run: "RunFolder", study: "SearchStudy") -> str:
    if not run.is_delivered:
        return "not yet delivered"
    number = study.metadata.delivered_trial
    return f"{run.best}" + ("" if number is None else f" (trial {number})")


def _params_rows(params: "Params") -> dict[str, str]:
    """Numbers without what rounding has left at their ends."""
    return {
        f"  {path}": f"{value:.12g}" if isinstance(value, float) else str(value)
        for path, value in params.items()
    }


def _trainings_text(num_done: int, num_trainings: int) -> str:
    return f"{num_done} of {num_trainings} trainings on fresh seeds have ended"


def _verdict_rows(verdict: "Verdict", params: dict[str, str] | None = None) -> dict[str, str]:
    """Who won on fresh seeds, against the default configuration."""
    from hpo.selection.verdict import DEFAULT, epochs_text, gain_text, mean_text

    rows = {"winner": f"trial {verdict.winner}", **(params or {})}
    if verdict.means:
        rows["winner"] += f", {mean_text(verdict, verdict.winner)}"
        rows["its epochs"] = epochs_text(verdict)
    if DEFAULT in verdict.means and verdict.winner != DEFAULT:
        rows["default"] = f"trial {DEFAULT}, {mean_text(verdict, DEFAULT)}"
    return rows | {"gain": gain_text(verdict)}


def _delivery_rows(run: "RunFolder") -> dict[str, str]:
    metrics = json.loads((run.best / "metrics.json").read_text(encoding="utf-8"))
    rows = {}
    for split in ("val", "test"):
        if metrics[split]:
            top1, count = metrics[split]["top1"], metrics[split]["num_images"]
            rows[f"{split} top-1"] = f"{top1:.4f} (retrained, {count} images)"
    rows |= {
        "ONNX model": str(run.best / "model.onnx"),
        "checkpoint": str(run.best / "checkpoint.safetensors"),
        "metrics": str(run.best / "metrics.json"),
        "parity, speed": str(run.best / "export.json"),
    }
    return rows


def _print_rows(rows: dict[str, str]) -> None:
    """Names and values in two columns; on a terminal long values are folded into theirs."""
    console = Console(markup=False, highlight=False)
    width = max(16, *map(len, rows))
    if not console.is_terminal:
        sys.stdout.writelines(f"{name:<{width}}  {value}\n" for name, value in rows.items())
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _stderr() -> Console:
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE  # a log has no width: do not fold its lines at 80
    return console


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
