"""A trained model of eight digits with its exemplars, and the images of an extension by two."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from configs import changed

from hpo.delivery.exemplars import write_exemplars
from hpo.transfer.extended_images import Extended, write_extended_images
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.data.image_folder import read_image_folder
from sgformer.data_config import DataConfig
from sgformer.training.checkpoint import save_progress
from sgformer.training.exemplars import choose_exemplars
from sgformer.training.trainer import Trainer

OLD = tuple("01234567")
NUM_EXEMPLARS = 3


@dataclass(frozen=True)
class Extendable:
    """What an extension takes.

    Attributes:
        base: The folder of the model of the old classes.
        new: The folder of new images: of 8 and 9, and two more train images of 0.
        images: The images of the extension.
    """

    base: Path
    new: Path
    images: Extended

    def config(self, base: TrainConfig, **sections: dict) -> TrainConfig:
        """The base's training, as one that extends."""
        own = {
            "model": {"checkpoint": self.base},
            "data": {"data_dir": self.images.manifest},
            "distillation": {"teacher": [self.base]},
            "extension": {"base": self.base},
        }
        for name, section in sections.items():
            own[name] = own.get(name, {}) | section
        return changed(base, **own)


def write_classes(image_folder: Path, root: Path, classes: str) -> Path:
    """A copy of some classes of the image folder."""
    for split in ("train", "val", "test"):
        for name in classes:
            shutil.copytree(image_folder / split / name, root / split / name)
    return root


def write_extendable(image_folder: Path, train_config: TrainConfig, root: Path) -> Extendable:
    """Trains a model of the digits 0 to 7 for two epochs, and makes the images that extend it."""
    old = write_classes(image_folder, root / "old", "".join(OLD))
    new = write_classes(image_folder, root / "new", "89")
    for split, number in (("train", 2), ("val", 1), ("test", 1)):
        (new / split / "0").mkdir()
        for path in sorted((old / split / "0").iterdir())[:number]:
            shutil.copyfile(path, new / split / "0" / f"more-{path.name}")
    config = changed(train_config, data={"data_dir": old}, max_epochs=2)
    trainer = Trainer(config, load_image_data(config.data))
    base = root / "base"
    for _ in trainer.epochs():
        save_progress(trainer, base)
    (base / "best.safetensors").rename(base / "checkpoint.safetensors")
    data, device = trainer.data, trainer.device
    kept = choose_exemplars(trainer.config, trainer.model, data, NUM_EXEMPLARS, device)
    write_exemplars(base / "exemplars", data, kept, 10**6)
    found = read_image_folder(DataConfig(data_dir=new))
    images = write_extended_images(root / "images", base, OLD, found)
    return Extendable(base, new, images)
