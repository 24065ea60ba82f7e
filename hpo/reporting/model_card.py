"""MODEL_CARD.md: what a delivered model is, how good, how it was chosen, and how to call it.

The front matter follows Hugging Face's model cards, so that the folder can be uploaded as it is.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from jinja2 import Environment, PackageLoader

from hpo.config.schema import SearchConfig
from hpo.model_files import ModelFiles
from hpo.reporting.beside import beside_rows
from hpo.reporting.extended import extension_rows
from hpo.reporting.modalities import modality_rows
from hpo.selection.verdict import Verdict
from hpo.selection.verdict_text import correction_text, gain_text, mean_text, teacher_texts
from hpo.study.trial import TrialSummary
from sgformer.features.columns import FeatureColumns
from sgformer.intervals import share_interval

TEMPLATE: Final = "MODEL_CARD.md"
MOST_CLASSES: Final = 100
NAMES_OF_METRICS: Final = {"top1": "accuracy", "top5": "top-5 accuracy", "macro_f1": "f1"}
PLACES: Final = ("data_dir", "cache_dir", "features")


def model_card(
    files: ModelFiles,
    config: SearchConfig,
    trials: tuple[TrialSummary, ...],
    verdict: Verdict | None,
) -> str:
    """The text of the card.

    Args:
        files: The delivered model's files.
        config: The config of the search.
        trials: The trials of the search.
        verdict: The finalists' comparison on fresh seeds; None: there was none.
    """
    told = _read(files.metrics)
    metrics = {split: told[split] for split in ("val", "test") if told.get(split)}
    training = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    data_set = _data_set(training, config.study.name)
    classes = _read(files.classes)
    template = Environment(
        loader=PackageLoader("hpo.reporting", "templates"), trim_blocks=True, lstrip_blocks=True
    ).get_template(TEMPLATE)
    for place in PLACES:  # paths of this machine
        training["data"].pop(place, None)
    checkpoint = training["model"].get("checkpoint")
    if checkpoint is not None:
        training["model"]["checkpoint"] = Path(checkpoint).name
    if distillation := training.get("distillation"):  # a model of an earlier version has none
        distillation["teacher"] = [_of_run(Path(path)) for path in distillation["teacher"]]
    if (extension := training.get("extension") or {}).get("base"):
        extension["base"] = _of_run(Path(extension["base"]))
    return template.render(
        front_matter=_front_matter(config.study.name, data_set, metrics),
        name=config.study.name,
        model=training["model"]["name"],
        side=training["data"]["image_size"],
        data_set=data_set,
        classes=classes[:MOST_CLASSES],
        num_classes=len(classes),
        metrics=list(_rows(metrics)),
        extension=extension_rows(files),
        modalities=list(modality_rows(metrics)),
        features=_features(files),
        num_trials=len(trials),
        chosen=None if verdict is None else _chosen(verdict),
        beside=[
            f"{name[0].upper()}{name[1:]}: {text}."
            for name, text in beside_rows(files, config.study.metric).items()
        ],
        training=yaml.safe_dump(training, sort_keys=False, allow_unicode=True).strip(),
        exports=_read(files.export_report),
    )


def _front_matter(name: str, data_set: str, metrics: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=data_set,
            dataset_split=split,
            metric_type=kind,
            metric_name=metric,
            metric_value=round(found[metric], 4),
        )
        for split, found in metrics.items()
        for metric, kind in NAMES_OF_METRICS.items()
        if found.get(metric) is not None
    ]
    data = ModelCardData(
        model_name=name,
        library_name="onnx",
        pipeline_tag="image-classification",
        tags=["image-classification"],
        eval_results=results,
    )
    return str(data.to_yaml())


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str, str]]:
    """Split, images, top-1 with its interval, top-5 and macro F1 of each split."""
    for split, found in metrics.items():
        num = found["num_images"]
        low, high = share_interval(found["top1"], num)
        top5 = found.get("top5")
        yield (
            split,
            num,
            f"{found['top1']:.4f} ({low:.4f} to {high:.4f})",
            "" if top5 is None else f"{top5:.4f}",
            f"{found['macro_f1']:.4f}",
        )


def _features(files: ModelFiles) -> dict[str, Any] | None:
    """Number and columns, in words, of the features that a model takes; None: it takes none."""
    if "features" not in _read(files.export_report)["model.onnx"]:
        return None
    from sgformer.training.checkpoint_file import read_metadata  # imports torch

    columns = FeatureColumns.from_metadata(read_metadata(files.checkpoint))
    assert columns is not None, "the model's file takes features"
    encoder = f", texts encoded by {columns.encoder}" if columns.encoder else ""
    return {"size": columns.size, "text": columns.in_words() + encoder}


def _chosen(verdict: Verdict) -> list[str]:
    sentences = [f"Trial {verdict.winner}"]
    if verdict.winner in verdict.means:
        sentences.append(mean_text(verdict, verdict.winner))
    lines = [": ".join(sentences), f"Gain: {gain_text(verdict)}"]
    if texts := teacher_texts(verdict):
        without, adds = texts
        lines.append(f"Without its teacher: {without}; the teacher adds {adds}")
    return [*lines, correction_text(verdict)] if verdict.means else lines


def _data_set(training: Mapping[str, Any], name: str) -> str:
    """The name of the images: of their folder or file; an extension's manifest is in its own."""
    path = Path(training["data"].get("data_dir") or name)
    is_extension = (training.get("extension") or {}).get("base") is not None
    return path.parent.name if is_extension else path.name


def _of_run(teacher: Path) -> str:
    """A teacher as a reader elsewhere may know it, such as 'digits/best'."""
    return "/".join(teacher.parts[-2:])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
