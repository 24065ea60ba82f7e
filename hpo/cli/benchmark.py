"""The command that compares a model's exported files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.completion import complete_runs
from hpo.cli.options import AsJson
from hpo.cli.output import print_json, print_note, print_table

if TYPE_CHECKING:
    from sgformer.export.comparison import ComparedFile


def benchmark(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="A run's folder, or an exported file.",
            autocompletion=complete_runs,
        ),
    ],
    data_dir: Annotated[
        Path | None, typer.Option(help="Images, as for search. Default: the run's.")
    ] = None,
    max_images: Annotated[
        int, typer.Option(min=1, help="Val images that are classified, at most.")
    ] = 512,
    as_json: AsJson = False,
) -> None:
    """Size, top-1 on val, and latency on this machine's CPU, of a model's exported files."""
    from hpo.delivery.classify import compare_formats
    from hpo.execution.surroundings import usable_surroundings
    from sgformer.cpus import usable_cpus

    with usable_surroundings():
        found, notes = compare_formats(place, data_dir, max_images)
    if as_json:
        files = {name: asdict(each) for name, each in found.items()}
        print_json({"files": files, "num_cpus": usable_cpus(), "notes": notes})
        return
    for note in notes:
        print_note(note)
    header = (
        "format",
        "MB",
        "top-1 (95 %)",
        "agree",
        "1: p50",
        "p95",
        "8: p50",
        "p95",
        "images/s",
    )
    print_table(header, [_row(name, each) for name, each in found.items()])
    print_note(
        f"agree: share of images with the class of {next(iter(found))}; p50, p95: milliseconds a "
        f"batch of 1 and of 8, by turns, {usable_cpus()} CPUs"
    )


def _row(name: str, found: "ComparedFile") -> tuple[str, ...]:
    one, eight = found.latency_ms["1"], found.latency_ms["8"]
    return (
        name,
        f"{found.bytes / 1e6:.2f}",
        f"{found.top1:.4f} ({found.low:.4f} to {found.high:.4f})",
        f"{found.class_agreement:.3f}",
        *(f"{value:.1f}" for value in (one.p50, one.p95, eight.p50, eight.p95)),
        f"{found.images_per_second:.0f}",
    )
