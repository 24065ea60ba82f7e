import json
from pathlib import Path

import pytest
import torch
from extensions import OLD, Extendable

from hpo.delivery.forgetting import (
    Forgetting,
    are_right,
    measure_forgetting,
    read_forgetting,
    told_of,
)
from hpo.errors import RunError
from hpo.model_files import ModelFiles
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.training.trainer import Trainer

FOUND = Forgetting(8, ("8", "9"), 80, 20, 0.95, 0.9, 0.05, 0.01, 0.09, 0.7)


def test_an_extension_is_measured_on_the_same_old_images_before_and_after(
    extendable: Extendable, train_config: TrainConfig
) -> None:
    config = extendable.config(train_config.with_epochs(1)).resolved()
    data = load_image_data(config.data)
    trainer = Trainer(config, data)
    for _ in trainer.epochs():
        pass
    base = extendable.base / "checkpoint.safetensors"
    found = measure_forgetting(config, trainer.model, base, data)
    assert (found.num_old_classes, found.new_classes) == (8, ("8", "9"))
    assert (found.num_old_images, found.num_new_images) == (8 * 3 + 1, 6)
    val = data.samples("val")
    right = are_right(config, trainer.model, data, val, torch.device("cpu"))
    assert found.after == pytest.approx(right[val[:, 1] < 8].mean())
    assert found.new == pytest.approx(right[val[:, 1] >= 8].mean())
    assert found.forgetting == pytest.approx(found.before - found.after)
    assert found.low <= found.forgetting <= found.high
    with torch.no_grad():  # a model that knows but the new classes has forgotten all
        trainer.model.head.bias[: len(OLD)] -= 100  # type: ignore[union-attr, index, operator]
    lost = measure_forgetting(config, trainer.model, base, data)
    assert (lost.before, lost.after, lost.new > 0) == (found.before, 0.0, True)


def test_an_extension_that_forgets_too_much_is_refused_with_the_figure() -> None:
    FOUND.refuse_more_than(0.05, Path("runs/x/best"))
    with pytest.raises(RunError, match=r"which is 0\.0500 and more than --max-forgetting 0\.02; "):
        FOUND.refuse_more_than(0.02, Path("runs/x/best"))
    with pytest.raises(
        RunError, match=r"forgets 0\.0500 \(0\.0100 to 0\.0900\) .* runs/x/best is"
    ):
        FOUND.refuse_more_than(0.02, Path("runs/x/best"))


def test_what_is_told_of_an_extension_has_no_path_of_this_machine(
    extendable: Extendable, train_config: TrainConfig, tmp_path: Path
) -> None:
    told = told_of(FOUND, extendable.config(train_config), 12.5)
    text = json.dumps(told)
    assert str(extendable.base.parent) not in text
    assert told["base"].endswith("/base")
    files = ModelFiles(tmp_path)
    assert read_forgetting(files) is None
    files.extension.write_text(text)
    assert read_forgetting(files) == json.loads(text)
