"""The files of a delivered model."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgformer.config import TrainConfig
from sgformer.validation import validate


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a delivered model's files, in best/ or in a folder of front/."""

    folder: Path

    @property
    def onnx(self) -> Path:
        """The exported model, which includes the class names and the preprocessing."""
        return self.folder / "model.onnx"

    @property
    def uint8(self) -> Path:
        """The model of RGB images of any size; only there if `export.uint8` asks for it."""
        return self.folder / "model.uint8.onnx"

    @property
    def checkpoint(self) -> Path:
        """The trained weights of the best epoch, as safetensors."""
        return self.folder / "checkpoint.safetensors"

    @property
    def config(self) -> Path:
        """The configuration that the model was trained with."""
        return self.folder / "config.yaml"

    @property
    def classes(self) -> Path:
        """The names of the classes, in the order of the model's outputs."""
        return self.folder / "classes.json"

    @property
    def metrics(self) -> Path:
        """The model's metrics on val and test."""
        return self.folder / "metrics.json"

    @property
    def pictures(self) -> Path:
        """Small copies of images that the model gets wrong; not there with `report.images` off."""
        return self.folder / "pictures.json"

    @property
    def exemplars(self) -> Path:
        """Images that the model keeps to be extended with; see hpo/delivery/exemplars.py."""
        return self.folder / "exemplars"

    @property
    def extension(self) -> Path:
        """What an extended model forgets of its old classes; only there for such a model."""
        return self.folder / "extension.json"

    @property
    def export_report(self) -> Path:
        """Differences of the exported model from the trained one, its size and its speed."""
        return self.folder / "export.json"

    @property
    def card(self) -> Path:
        """What the model is, how good, how it was chosen, and how to call it."""
        return self.folder / "MODEL_CARD.md"

    @property
    def is_delivered(self) -> bool:
        """Whether the folder holds an exported model that was checked."""
        return self.export_report.exists()

    @property
    def asked_to_be(self) -> str:
        """`retrain.deliver` of the search that delivered the model."""
        values = json.loads(self.metrics.read_text("utf-8")) if self.metrics.is_file() else {}
        return str((values.get("combination") or {}).get("asked", "winner"))

    def fingerprint(self) -> str | None:
        """The fingerprint of the delivered model's config; None if no model is delivered."""
        if not self.is_delivered or not self.config.is_file():
            return None
        values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        return validate(TrainConfig, values, str(self.config)).fingerprint()
