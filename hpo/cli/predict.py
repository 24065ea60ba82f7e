"""The command that classifies images by an exported model."""

import csv
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hpo.cli.options import AsJson
from hpo.cli.output import print_json, print_note, progress_of
from sgformer.errors import InputError

if TYPE_CHECKING:
    from sgformer.export.onnx_classifier import Prediction
    from sgformer.images.pixel_rules import PixelRules
    from sgformer.images.set_decoder import Oddities

    Predicted = tuple[Path, Prediction]

NUM_LIKELIEST: Final = 3
MOST_NAMED: Final = 5


class PredictionFormat(StrEnum):
    """The output format of `predict`: text for people, csv and jsonl for programs."""

    TEXT = "text"
    CSV = "csv"
    JSONL = "jsonl"


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Files, folders, patterns ('a/**/*.jpg'), or - for names on standard input.",
        ),
    ],
    output_format: Annotated[
        PredictionFormat, typer.Option("--format", help="csv and jsonl keep names as they are.")
    ] = PredictionFormat.TEXT,
    features: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The images' features, for a model that takes them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The likeliest classes of images, by an exported model."""
    from hpo.delivery.classify import open_model
    from hpo.delivery.file_features import features_of_files
    from hpo.delivery.predictions import image_files, predictions

    classifier = open_model(model)
    files, unreadable = image_files(images, sys.stdin), list[str]()
    known = {}
    if features is not None:
        known = features_of_files(classifier, features, files, print_note)
    elif classifier.columns is not None:
        print_note(f"images alone: the model also takes {classifier.columns.in_words()}")
    with progress_of("predicting") as tell:
        found = predictions(classifier, files, unreadable.append, tell, known.get)
        if as_json:
            print_json([_as_json(one, classifier.rules) for one in found])
        else:
            _print(found, output_format, classifier.rules)
    if unreadable:
        more = f" and {len(unreadable) - MOST_NAMED} more" * (len(unreadable) > MOST_NAMED)
        raise InputError(
            f"cannot read image{'s' * (len(unreadable) > 1)}: "
            f"{', '.join(unreadable[:MOST_NAMED])}{more} ({len(unreadable)} of {len(files)})"
        )


def _print(
    found: "Iterator[Predicted]", output_format: PredictionFormat, rules: "PixelRules"
) -> None:
    from sgformer.images.set_decoder import Oddities

    if output_format == PredictionFormat.JSONL:
        for one in found:
            print_json(_as_json(one, rules), indent=None)
        return
    odd = Oddities()
    _PRINTERS[output_format](_noting(found, odd))
    for note in odd.notes(rules):
        print_note(note)


def _noting(found: "Iterator[Predicted]", odd: "Oddities") -> "Iterator[Predicted]":
    for image, prediction in found:
        odd.add(str(image), prediction.traits)
        yield image, prediction


def _print_text(found: "Iterator[Predicted]") -> None:
    for image, prediction in found:
        likeliest = list(prediction.classes.items())[:NUM_LIKELIEST]
        text = ", ".join(f"{_on_one_line(name)} {share:.3f}" for name, share in likeliest)
        sys.stdout.write(f"{_on_one_line(str(image))}: {text}\n")


def _print_csv(found: "Iterator[Predicted]") -> None:
    """Prints the header image,rank,class,probability, and a line per image and likely class."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability"))
    for image, prediction in found:
        for rank, (name, share) in enumerate(list(prediction.classes.items())[:NUM_LIKELIEST], 1):
            writer.writerow((image, rank, name, share))


_PRINTERS: Final = {PredictionFormat.TEXT: _print_text, PredictionFormat.CSV: _print_csv}


def _as_json(predicted: "Predicted", rules: "PixelRules") -> dict[str, object]:
    from sgformer.images.set_decoder import in_words

    image, prediction = predicted
    likeliest = list(prediction.classes.items())[:NUM_LIKELIEST]
    notes = [kind for trait, kind in in_words(rules).items() if trait in prediction.traits]
    return {
        "image": str(image),
        "classes": [{"class": name, "probability": share} for name, share in likeliest],
        "notes": notes,
    }


def _on_one_line(name: str) -> str:
    """The name with line breaks and other unprintable characters escaped."""
    return "".join(c if c.isprintable() or _is_no_utf8(c) else repr(c)[1:-1] for c in name)


def _is_no_utf8(character: str) -> bool:
    """Whether the character stands for a byte of a file name that is not valid UTF-8."""
    return "\udc80" <= character <= "\udcff"
