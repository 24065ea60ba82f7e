import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import changed
from data_sets import write_csv as write_manifest
from feature_tables import names_of, write_csv, write_npz, write_told
from text_encoders import SIZE, write_encoder

from sgformer.config import TrainConfig
from sgformer.data.image_data import ImageData, load_image_data, with_features
from sgformer.errors import DataError
from sgformer.features.columns import Column, FeatureColumns
from sgformer.features.encoders import encoder_of
from sgformer.sources.image_files import SPLITS

pytestmark = pytest.mark.fuse


@pytest.fixture
def config(train_config: TrainConfig, image_folder: Path, tmp_path: Path) -> TrainConfig:
    """The settings of a training with a table of features, and a cache of its own."""
    table = write_told(tmp_path / "told.csv", image_folder)
    return changed(train_config, data={"features": table, "cache_dir": tmp_path / "cache"})


def load(config: TrainConfig) -> ImageData:
    return load_image_data(config.data)


def test_each_image_has_its_own_row(config: TrainConfig) -> None:
    data = load(config)
    assert data.features is not None
    for split in SPLITS:
        samples = torch.from_numpy(data.samples(split))
        vectors = data.features.of(samples[:, 0])
        assert torch.equal(vectors[:, 0], 100 + 10 * samples[:, 1].float())
    assert data.features.notes == ()
    train = data.features.matrix[data.samples("train")[:, 0]]
    assert data.features.scaling.mean[0] == pytest.approx(train[:, 0].mean())


def test_rows_in_any_order_and_paths_of_a_manifest_are_found(
    config: TrainConfig, own_image_folder: Path, tmp_path: Path
) -> None:
    manifest = write_manifest(own_image_folder, tmp_path)
    names = [f"images/{name}" for name in reversed(names_of(own_image_folder))]
    absolute = [name for name in names if "/val/" not in name]  # paths of val are absolute there
    table = write_csv(tmp_path / "m.csv", absolute, lambda name: {"digit": name.split("/")[2]})
    data = load(changed(config, data={"data_dir": manifest, "features": table}))
    assert data.features is not None
    samples = data.samples("train")
    assert np.array_equal(data.features.matrix[samples[:, 0], 0], samples[:, 1])
    assert any("30 of 30 val images have no features" in note for note in data.notes)


def test_images_and_rows_that_lack_the_other_are_told(
    config: TrainConfig, image_folder: Path, tmp_path: Path
) -> None:
    names = [name for name in names_of(image_folder) if not name.startswith("val/9/")]
    table = write_csv(tmp_path / "t.csv", [*names, "train/9/none.png"], lambda _: {"size": 1})
    data = load(changed(config, data={"features": table}))
    row, lacking = data.notes
    told = "are of none of these images, and passed over: 'train/9/none.png'"
    assert row == f"1 rows of {table} {told}"
    assert lacking.startswith("3 of 30 val images have no features, and are classified by the im")
    assert data.features is not None
    assert np.isnan(data.features.matrix).sum() == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/0/0.png", "train/0/0.png"],
            r"has image 'train/0/0\.png' twice; leave one row ou",
        ),
        (["0.png"], r"names none of the images: it has '0\.png', the images are 'test/0/"),
        (["val/0/6.png"], r"no train image has features in .*t\.csv"),
    ],
)
def test_a_table_that_does_not_suit_the_images_is_refused(
    config: TrainConfig, tmp_path: Path, names: list[str], message: str
) -> None:
    table = write_csv(tmp_path / "t.csv", names, lambda _: {"size": 1})
    with pytest.raises(DataError, match=message):
        load(changed(config, data={"features": table}))


def test_a_vector_with_nan_names_its_image(config: TrainConfig, tmp_path: Path) -> None:
    vectors = np.array([[1, 2], [3, np.nan]])
    table = write_npz(tmp_path / "t.npz", ["train/0/0.png", "train/0/1.png"], vectors)
    with pytest.raises(DataError, match=r"'vectors' of 'train/0/1\.png' is nan, no finite numbe"):
        load(changed(config, data={"features": table}))


def test_the_matrix_is_one_mapped_file_which_is_built_once(config: TrainConfig) -> None:
    first = load(config)
    assert first.features is not None
    assert isinstance(first.features.matrix, np.memmap)
    file = Path(str(first.features.matrix.filename))
    number = file.stat().st_ino
    again = load(config)
    assert again.features is not None
    assert isinstance(again.features.matrix, np.memmap)
    assert again.features.matrix.filename == first.features.matrix.filename
    assert file.stat().st_ino == number
    assert np.array_equal(again.features.matrix, first.features.matrix)


def test_another_content_of_the_table_is_another_matrix(config: TrainConfig) -> None:
    first, table = load(config), config.data.features
    assert table is not None
    before = table.stat()
    table.write_text(table.read_text().replace("100", "500"))
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = load(config)
    assert first.features is not None
    assert second.features is not None
    assert first.features.digest != second.features.digest
    assert second.features.matrix.max() == 500


def test_features_that_changed_within_a_search_are_refused(config: TrainConfig) -> None:
    data = load(config)
    images = data.images.id
    with pytest.raises(DataError, match=r"told\.csv have changed since the search began; put the"):
        load_image_data(config.data, expected=type(images)(images.files, images.content, "other"))


def test_the_columns_of_a_model_are_kept(config: TrainConfig) -> None:
    plain = load_image_data(config.data.model_copy(update={"features": None}))
    columns = FeatureColumns((Column("colour", "category", 1, ("red",)),))
    found = with_features(plain, config.data, columns)
    assert found.features is not None
    assert found.features.columns == columns
    assert set(np.unique(found.features.matrix)) == {0, 1}


def _load(config: TrainConfig) -> float:
    return float(load(config).features.matrix[0, 0])  # type: ignore[union-attr]


def test_processes_that_start_together_build_one_matrix(config: TrainConfig) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        assert len(set(processes.map(_load, [config] * 4))) == 1
    place = config.data.cache_dir / "features"  # type: ignore[operator]
    assert len([path for path in place.iterdir() if path.is_dir()]) == 1


def test_a_node_on_which_nothing_can_be_kept_reads_the_table_too(config: TrainConfig) -> None:
    load(changed(config, data={"features": None}))
    place = config.data.cache_dir
    assert place is not None
    (place / "features").write_text("a file in the place of the folder")
    assert load(config).features is not None


def test_texts_are_encoded_by_the_weights_of_a_folder(
    config: TrainConfig, image_folder: Path, tmp_path: Path
) -> None:
    names = names_of(image_folder)
    words = ("red", "twenty")
    table = write_csv(
        tmp_path / "t.csv",
        names,
        lambda name: {"text": f"it is {words[int(name.split('/')[1]) % 2]}"},
    )
    folder = write_encoder(tmp_path / "small")
    values = {"features": table, "text_encoder": str(folder)}
    with_texts = changed(config, data=values)
    features = load(with_texts).features
    assert features is not None
    assert (features.columns.size, features.columns.encoder) == (
        SIZE,
        encoder_of(str(folder)).name,
    )
    samples = load(with_texts).samples("train")
    by_word = [features.matrix[samples[samples[:, 1] % 2 == i, 0]] for i in (0, 1)]
    assert all(np.allclose(one, one[0], atol=1e-6) for one in by_word)
    assert not np.allclose(by_word[0][0], by_word[1][0], atol=0.01)
    moved = shutil.move(folder, tmp_path / "moved")
    elsewhere = changed(config, data=values | {"text_encoder": str(moved)})
    assert load(elsewhere).features.digest == features.digest  # type: ignore[union-attr]
    assert elsewhere.fingerprint() == with_texts.fingerprint()
    other = changed(
        config, data=values | {"text_encoder": str(write_encoder(tmp_path / "b" / "small", 1))}
    )
    assert load(other).features.digest != features.digest  # type: ignore[union-attr]
