"""Tests of a run's own copies of the checkpoints that teach its models."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.execution.training import Training, run_training
from hpo.run_folder import RunFolder
from hpo.run_store import claim_store, store_of
from hpo.run_teachers import find_teachers, keep_teachers, teachers_of
from sgformer.config import TrainConfig
from sgformer.errors import CheckpointError


def load_config(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, overrides)[0]


def ignore(_: str) -> None:
    """Takes a note."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.make()
    return folder


@pytest.fixture(scope="module")
def teacher(train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial's folder, of one epoch."""
    folder = tmp_path_factory.mktemp("teaching") / "trials" / "0"
    list(run_training(Training(train_config.with_epochs(1), folder)))
    return folder


def test_a_run_keeps_a_copy_of_its_teacher_and_trains_with_it(
    search_file: Path, run: RunFolder, teacher: Path
) -> None:
    own = run.path / "teacher.safetensors"
    shutil.copy(teacher / "best.safetensors", own)
    config = load_config(search_file, f"train.distillation.teacher={own}", "train.max_epochs=2")
    notes: list[str] = []
    keep_teachers(config, run, notes.append)
    own.unlink()
    keep_teachers(config, run, notes.append)
    assert len(notes) == 1
    assert re.fullmatch(r"the teacher is sg_former_pico, 0\.\d\d M parameters, of .*", notes[0])
    (stored,) = teachers_of(run, config.train)
    assert stored.path.read_bytes() == (teacher / "best.safetensors").read_bytes()
    training = Training(config.train, run.path / "trials" / "0", teachers=(stored,))
    *_, last = run_training(training)
    assert last is not None
    assert last.facts["config_fingerprint"] == config.train.fingerprint(teachers=[stored.digest])


def test_a_search_without_a_share_for_the_teacher_trains_without_it(
    search_file: Path, run: RunFolder, teacher: Path
) -> None:
    config = load_config(
        search_file, f"train.distillation.teacher={teacher}", "train.distillation.weight=0"
    )
    assert teachers_of(run, config.train) == ()


def test_a_teacher_of_other_classes_is_refused_before_the_search(
    search_file: Path, teacher: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (other / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.full((8, 8), 40 * i + len(name), np.uint8)
                Image.fromarray(pixels).save(other / split / name / f"{split}{i}.png")
    config = load_config(
        search_file, f"train.distillation.teacher={teacher}", f"train.data.data_dir={other}"
    )
    with pytest.raises(
        CheckpointError,
        match=r"^train\.distillation\.teacher: .* only the images have 'cat', 'dog'",
    ):
        list(find_teachers(config))


def test_a_teacher_comes_from_the_store_and_is_needed_when_a_training_goes_on(
    search_file: Path, run: RunFolder, teacher: Path, tmp_path: Path
) -> None:
    config = load_config(
        search_file,
        f"train.distillation.teacher={teacher}",
        f"study.checkpoint_to={(tmp_path / 'store').as_uri()}",
    )
    claim_store(config, run)
    store = store_of(config, run)
    assert store is not None
    keep_teachers(config, run, ignore)
    store.send_weights(run)
    (stored,) = teachers_of(run, config.train)
    stored.path.rename(tmp_path / "the driver's own.safetensors")
    training = Training(
        config.train.with_epochs(2), Path("/proc/none/trials/0"), mark=store.mark, store=store,
        teachers=(stored,),
    )  # fmt: skip
    first = run_training(training)
    next(filter(None, first))
    first.close()
    told = [progress for progress in run_training(training) if progress is not None]
    assert [row["epoch"] for progress in told for row in progress.epochs] == [1, 2]
