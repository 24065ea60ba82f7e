"""Makes a run's best/ folder from a checkpoint: weights, config, metrics and ONNX file."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hpo.config.sections import ExportConfig, KeptExemplarsConfig, RetrainConfig
from hpo.delivery.combination import Combination
from hpo.delivery.exemplars import write_exemplars
from hpo.model_files import ModelFiles
from hpo.run_folder import finish_replacing, newcomer_of, replace_folder, replace_text
from sgformer.config import TrainConfig
from sgformer.data_config import DataConfig
from sgformer.errors import DataError, InputError, listed
from sgformer.export.names import FILES

if TYPE_CHECKING:
    from sgformer.data.image_cache import ImagesId
    from sgformer.data.image_data import ImageData, Samples
    from sgformer.export.formats import Limits
    from sgformer.images.trained_images import TrainedImages


@dataclass(frozen=True)
class Exported:
    """What a user should know of an export.

    Attributes:
        notes: What a user should know of the images, a sentence each.
        refused: The reasons for which files were not delivered, by their names.
    """

    notes: tuple[str, ...]
    refused: dict[str, str]


@dataclass(frozen=True)
class Beside:
    """What metrics.json says of a delivered model beside its own metrics.

    Attributes:
        combination: What became of the soup or ensemble that was asked for; None: none was.
        teacher: What its teacher reaches on val; None: it has none.
        rivals: Checkpoints of models whose latency is measured by turns with its own, by name;
            several are an ensemble.
    """

    combination: Combination | None = None
    teacher: Mapping[str, Any] | None = None
    rivals: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def as_metrics(self, model: Path) -> dict[str, Any]:
        """The entries of metrics.json; the model's file is timed."""
        from sgformer.export.rivals import latencies_beside

        values: dict[str, Any] = {}
        if self.combination is not None:
            values["combination"] = self.combination.model_dump(mode="json")
        if self.teacher is not None:
            values["teacher"] = dict(self.teacher)
        if self.rivals:
            values["latency_ms"] = latencies_beside(model, self.rivals)
        return values


@dataclass(frozen=True)
class More:
    """What a delivered folder has beside the model and its metrics.

    Attributes:
        pictures: The content of pictures.json; None: there is no such file.
        kept: The exemplars, as positions and labels by kind; empty: none are kept.
        keep_bytes: The most bytes of each kind.
        extension: The content of extension.json; None: the model is no extension.
        beside: What metrics.json says beside the metrics.
    """

    pictures: Mapping[str, Any] | None = None
    kept: "Mapping[str, Samples]" = field(default_factory=dict)
    keep_bytes: int = KeptExemplarsConfig().keep_bytes
    extension: Mapping[str, Any] | None = None
    beside: Beside = Beside()


def deliver(
    folder: Path,
    checkpoint: Path,
    metrics: Mapping[str, Any],
    images: "ImagesId | None" = None,
    num_images: int = RetrainConfig().proof_images,
    places: DataConfig | None = None,
    settings: ExportConfig | None = None,
    more: More = More(),
) -> None:
    """Exports an evaluated checkpoint, checks the export, then replaces the whole folder.

    Args:
        folder: A run's best/, or a folder of front/.
        checkpoint: The weights with their config, which names the images and their size.
        metrics: The checkpoint's SplitMetrics on val and test, by split.
        images: Identifies the images of the search; None: any images are accepted.
        num_images: The number of val images on which the export is checked, at most.
        places: Where the images and their cache are now; None: where the training had them.
        settings: Which files are delivered; None: model.onnx alone.
        more: What the folder has beside the model and its metrics.

    Raises:
        DataError: The images cannot be read, or are not those of the search.
        ExportError: The ONNX model and the trained model give different outputs; the folder
            stays unchanged.
    """
    from sgformer.export.formats import Trained, write_formats

    settings = settings or ExportConfig()
    finish_replacing(folder)
    new = newcomer_of(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    shutil.copyfile(checkpoint, new / "checkpoint.safetensors")
    config, model, classes = load_model(new / "checkpoint.safetensors", places)
    known = trained_images_of(checkpoint)
    data = images_for(config, known, images)
    check_same_classes(classes, data, known)
    values = config.model_dump(mode="json")
    replace_text(new / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    _write_json(new / "classes.json", list(classes))
    _write_more(new, data, more)
    facts, limits = _facts(metrics, settings) | features_of(checkpoint, data), _limits(settings)
    trained = Trained(model, config, data, num_images, known, facts, limits)
    report = write_formats(trained, new, settings.formats)
    _write_json(new / "metrics.json", {**metrics, **more.beside.as_metrics(new / FILES["onnx"])})
    _write_json(new / "export.json", report)
    replace_folder(folder, new)


def _write_more(folder: Path, data: "ImageData", more: More) -> None:
    files = ModelFiles(folder)
    if more.pictures is not None:
        _write_json(files.pictures, more.pictures)
    if more.extension is not None:
        _write_json(files.extension, more.extension)
    if more.kept:
        facts = write_exemplars(files.exemplars, data, more.kept, more.keep_bytes)
        _write_json(files.exemplars / "exemplars.json", facts)


def export(
    folder: Path,
    places: DataConfig,
    num_images: int,
    settings: ExportConfig | None = None,
    formats: tuple[str, ...] | None = None,
) -> Exported:
    """Writes model files anew from the folder's checkpoint.safetensors; others stay.

    Args:
        folder: A run's best/, or a folder of front/.
        places: Where the images and their cache are; the export is checked on their val split.
        num_images: The number of val images on which the export is checked, at most.
        settings: What the files say of the model; None: nothing but the training's settings.
        formats: The formats, by their names in `FILES`; None: those of `settings`.

    Raises:
        DataError: The images cannot be read, or val was split off train and train has changed.
        ExportError: The ONNX model and the trained model give different outputs; no file is
            replaced.
        InputError: The folder cannot be written to.
    """
    from sgformer.export.formats import NOT_DELIVERED, Trained, write_formats
    from sgformer.images.trained_images import on_other_images

    settings = settings or ExportConfig()
    formats = formats or settings.formats
    checkpoint = folder / "checkpoint.safetensors"
    config, model, classes = load_model(checkpoint, places)
    known = trained_images_of(checkpoint)
    data = images_for(config, known)
    check_same_classes(classes, data, known)
    facts = _facts(_metrics(folder), settings) | features_of(checkpoint, data)
    limits = _limits(settings)
    trained = Trained(model, config, data, num_images, known, facts, limits)
    new = _copy_without(folder, formats)
    before = _read_json(folder / "export.json")
    if not (new / FILES["onnx"]).exists():
        formats = (*formats, "onnx")
    report = write_formats(trained, new, formats)
    _write_json(new / "export.json", before | report)
    replace_folder(folder, new)
    notes = data.notes
    if known is not None and not known.has_same("val", data.trained_images):
        notes = (*notes, on_other_images("val"))
    refused = {n: told[NOT_DELIVERED] for n, told in report.items() if NOT_DELIVERED in told}
    return Exported(notes, refused)


def _copy_without(folder: Path, formats: tuple[str, ...]) -> Path:
    """A copy of a delivered model without its files of these formats, to replace it with.

    The folder is replaced as a whole, so that no model meets weights of another export.
    """
    new = newcomer_of(folder)
    shutil.rmtree(new, ignore_errors=True)
    files = [Path(FILES[name]) for name in formats]
    left_out = [f for file in files for f in (file.name, f"{file}.data", f"{file.stem}.bin")]
    try:
        shutil.copytree(folder, new, ignore=shutil.ignore_patterns("export.json", *left_out))
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise InputError(f"cannot write to {folder.parent}: {reason}") from None
    return new


def _facts(metrics: Mapping[str, Any], settings: ExportConfig) -> dict[str, Any]:
    """What a model's files say of it beside the training: metrics by split, and license."""
    kept = ("num_images", "top1", "top5", "macro_f1", "loss")
    by_split = {
        split: {name: values[name] for name in kept if name in values}
        for split in ("val", "test")
        if (values := metrics.get(split))
    }
    return {"metrics": by_split, "license": settings.license}


def _limits(settings: ExportConfig) -> "Limits":
    from sgformer.export.formats import Limits

    return Limits(
        max_top1_drop=settings.max_top1_drop,
        even_if_slower=settings.int8 == "smallest",
        compute_capabilities=settings.compute_capabilities,
    )


def _metrics(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "metrics.json")


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return values


def trained_images_of(checkpoint: Path) -> "TrainedImages | None":
    """What a checkpoint keeps of the images of its training; None: it is of an earlier version."""
    from sgformer.images.trained_images import TrainedImages
    from sgformer.training.checkpoint_file import read_metadata

    return TrainedImages.from_metadata(read_metadata(checkpoint))


def features_of(checkpoint: Path, data: "ImageData") -> dict[str, Any]:
    """What a model's files say of the features that it takes; empty if it takes images alone.

    Raises:
        DataError: The features of the images have other columns than the model.
    """
    from sgformer.features.columns import FeatureColumns
    from sgformer.training.checkpoint_file import read_metadata

    columns = FeatureColumns.from_metadata(read_metadata(checkpoint))
    found = None if data.features is None else data.features.columns
    if columns != found:
        raise DataError(
            f"the model takes {columns.in_words() if columns else 'images alone'}, and the table "
            f"has {found.in_words() if found else 'nothing'}; put the features of its training "
            "back (train.data.features)"
        )
    return {} if columns is None else columns.as_metadata()


def images_for(
    config: TrainConfig, known: "TrainedImages | None", expected: "ImagesId | None" = None
) -> "ImageData":
    """The images to evaluate a model on, decoded as those of its training were."""
    from sgformer.data.image_data import load_image_data

    data = load_image_data(config.data, expected=expected)
    white = data.images.rules.max_value
    if known is None or known.max_value is None or white in (None, known.max_value):
        return data
    as_known = config.data.model_copy(update={"max_value": known.max_value})
    return load_image_data(as_known, expected=expected)


def check_same_classes(
    classes: tuple[str, ...], data: "ImageData", known: "TrainedImages | None"
) -> None:
    """Raises DataError if the images have other classes, or val images were trained on."""
    if data.classes != classes:
        raise DataError(
            f"{data.folder.root} has other classes than the model: "
            f"{listed(sorted(set(classes) - set(data.classes)))} are missing, "
            f"{listed(sorted(set(data.classes) - set(classes)))} are new"
        )
    if known is not None:
        known.refuse_mixed_val(data.trained_images, data.folder.root)


def load_model(
    checkpoint: Path, places: DataConfig | None = None
) -> tuple[TrainConfig, Any, tuple[str, ...]]:
    """The config, the model (on the CPU, in eval mode) and the class names of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        places: Where the images and their cache are now; None: where the training had them.
    """
    from sgformer.training.trained_model import load_trained

    config, model, classes = load_trained(checkpoint)
    if places is not None:
        config = config.model_copy(update={"data": config.data.at_places_of(places)})
    return config, model, classes


def _write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=2) + "\n")
