"""The commands that make or use a model: retrain, export, evaluate."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import AsJson, RunDir, Storage, make_display, open_run
from hpo.cli.output import print_json, print_note, print_rows
from sgformer.errors import ExportError, InputError
from sgformer.export.names import FILES
from sgformer.export.packages import check_packages

if TYPE_CHECKING:
    from hpo.run import Run
    from hpo.study.trial import TrialSummary


def retrain(
    run_dir: RunDir,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Which trial. Default: the winner.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Trains a trial's configuration at full length and puts it into the run's best/."""
    from hpo.continuation import changes_of_images
    from hpo.delivery.results_copy import check_results_url, copy_results
    from hpo.delivery.retrain import retrain_and_deliver
    from hpo.execution.interruption import hear_signals_to_the_end, interruptible
    from hpo.execution.searched_images import Decoding
    from hpo.execution.surroundings import usable_surroundings
    from hpo.reporting.report import write_report
    from hpo.reporting.rows import copied_rows, delivery_rows
    from hpo.run_store import claim_store
    from hpo.run_weights import keep_weights
    from hpo.selection.finalists import retrain_config

    hear_signals_to_the_end()
    run = open_run(run_dir, storage)
    chosen = _choose_trial(run, trial)
    with (
        interruptible(f"interrupted; `retrain {run_dir} --trial {chosen.number}` goes on"),
        usable_surroundings(),
        make_display(run.config) as display,
        run.folder.locked(display.note),
    ):
        check_results_url(run.folder, run.config)
        claim_store(run.config, run.folder, is_trial=True)
        keep_weights(run.config, run.folder, display.note)
        data = retrain_config(run.config, chosen.params).resolved().data
        with Decoding(data, display, run.folder.path) as decoding:
            images = decoding.images()
            if changes := changes_of_images(run.study, images.facts):
                display.note(f"the images are not those of the study: {changes}")
            retrain_and_deliver(run, chosen, display, images.id)
        write_report(run.folder, run.config, run.study)
        copy_results(run.folder, run.config)
    print_rows(delivery_rows(run.folder, run.config.study.metric) | copied_rows(run.config))


def _formats(text: str | None) -> str | None:
    """Checks the names in a list of formats; passes the list on."""
    names = [] if text is None else text.split(",")
    if unknown := [name for name in names if name not in FILES]:
        raise InputError(
            f"--format: takes {', '.join(FILES)}, separated by commas, got {unknown[0]!r}"
        )
    check_packages(names)
    return text


def export(
    run_dir: RunDir,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME,...",
            help=f"{', '.join(FILES)}. Default: onnx, and what the search file's export section "
            "asks for.",
            callback=_formats,
        ),
    ] = None,
) -> None:
    """Writes best/model.onnx and its other formats anew from best/checkpoint.safetensors."""
    from hpo.delivery.deliver import export as export_best
    from hpo.delivery.results_copy import copy_results
    from hpo.execution.surroundings import usable_surroundings
    from hpo.reporting.rows import copied_rows, delivery_rows
    from hpo.run_folder import RunFolder

    run = RunFolder(run_dir)
    config = run.load_config()
    run.check_writable()
    with usable_surroundings(), run.locked(print_note):
        if not (run.best / "checkpoint.safetensors").exists():
            raise InputError(
                f"{run.best} has no checkpoint.safetensors yet; `retrain {run_dir}` first"
            )
        exported = export_best(
            run.best,
            config.train.data,
            config.retrain.proof_images,
            config.export,
            None if formats is None else tuple(formats.split(",")),
        )
        for note in exported.notes:
            print_note(note)
        copy_results(run, config)
    print_rows(delivery_rows(run, config.study.metric) | copied_rows(config))
    if exported.refused:
        raise ExportError("; ".join(f"{n}: {reason}" for n, reason in exported.refused.items()))


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    data_dir: Annotated[Path, typer.Option(help="Images, as for search.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The images' features, as for search.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Metrics of an exported model on a split of a data set."""
    from hpo.delivery.classify import evaluate_exported
    from hpo.execution.surroundings import usable_surroundings

    with usable_surroundings():
        metrics, notes = evaluate_exported(model, data_dir, split, features)
    if as_json:
        print_json({**asdict(metrics), "notes": notes})
        return
    for note in notes:
        print_note(note)
    print_rows(
        {
            "split": f"{split} ({metrics.num_images} images)",
            "top-1": f"{metrics.top1:.4f}",
            "top-5": f"{metrics.top5:.4f}",
            "macro F1": f"{metrics.macro_f1:.4f}",
            "loss": f"{metrics.loss:.4f}",
        }
    )


def _choose_trial(run: "Run", number: int | None) -> "TrialSummary":
    """The trial with this number; None: the winner. Raises InputError if it does not exist."""
    from hpo.delivery.front import without_a_winner

    if number is None:
        if run.winner is None:
            raise InputError(f"{without_a_winner(run)}; or name a trial with --trial")
        return run.winner
    trials = {trial.number: trial for trial in run.trials}
    if number not in trials:
        raise InputError(
            f"--trial: no trial {number}; the study has 0 to {max(trials, default=0)}"
        )
    return trials[number]
