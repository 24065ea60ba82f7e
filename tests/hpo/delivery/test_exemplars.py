import json
import tarfile
from pathlib import Path

import numpy as np

from hpo.delivery.exemplars import write_exemplars
from sgformer.config import TrainConfig
from sgformer.data.image_data import load_image_data
from sgformer.images.decoding import decode_image
from sgformer.images.pixel_rules import PixelRules


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]


def test_an_extendable_model_keeps_files_without_their_names(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    data = load_image_data(train_config.data)
    samples = data.samples("train")[[0, 1, 6, 7]]
    folder = tmp_path / "exemplars"
    told = write_exemplars(folder, data, {"herding": samples[[0, 2, 1, 3]]}, 10**6)
    found = members(folder / "herding.tar")
    names = ["00000/00000.png", "00001/00000.png", "00000/00001.png", "00001/00001.png"]
    assert list(found) == names
    root = train_config.data.data_dir
    assert root is not None
    originals = [(root / data.images.names[p]).read_bytes() for p in samples[[0, 2, 1, 3], 0]]
    assert list(found.values()) == originals
    num_bytes = sum(map(len, originals))
    assert told == {"herding": {"num_images": 4, "bytes": num_bytes, "is_cut": False}}
    assert str(root).encode() not in (folder / "herding.tar").read_bytes()


def test_too_large_an_extendable_set_is_cut_evenly_but_keeps_each_class(
    train_config: TrainConfig, tmp_path: Path
) -> None:
    data = load_image_data(train_config.data)
    samples = data.samples("val")
    by_rank = samples[np.argsort(np.tile(np.arange(3), 10), kind="stable")]
    for most, number in ((1, 10), (sum(map(len, _contents(data, by_rank[:14]))), 14)):
        folder = tmp_path / str(most)
        told = write_exemplars(folder, data, {"val": by_rank}, most)
        assert (told["val"]["num_images"], told["val"]["is_cut"]) == (number, True)
        assert len(members(folder / "val.tar")) == number


def _contents(data: object, samples: np.ndarray) -> list[bytes]:
    return [data.images.content(position) for position in samples[:, 0].tolist()]  # type: ignore[attr-defined]


def test_a_large_file_is_kept_as_the_pixels_that_an_extension_sees(
    own_image_folder: Path, train_config: TrainConfig, tmp_path: Path
) -> None:
    import cv2

    path = own_image_folder / "train" / "0" / "0.png"
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    section = train_config.data.model_copy(
        update={"data_dir": own_image_folder, "cache_dir": tmp_path / "cache"}
    )
    data = load_image_data(section)
    position = data.images.names.index("train/0/0.png")
    told = write_exemplars(tmp_path / "e", data, {"val": np.array([[position, 0]])}, 10**6)
    (content,) = members(tmp_path / "e" / "val.tar").values()
    assert told["val"]["bytes"] < path.stat().st_size / 10
    image = decode_image(content, 32, PixelRules())
    assert image is not None
    assert image.shape == data.images[position].shape
    assert json.dumps(told)
