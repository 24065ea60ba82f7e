import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sgformer.data.image_cache import from_jpeg, open_cache, to_jpeg
from sgformer.data.image_data import load_image_data
from sgformer.data_config import DataConfig
from sgformer.errors import DataError
from sgformer.images.decoding import decode_image
from sgformer.sources.source import read_content


def config_for(folder: Path, cache_dir: Path, **values: object) -> DataConfig:
    data = {"data_dir": folder, "image_size": 32, "crop_pct": 1.0, "cache_dir": cache_dir}
    return DataConfig.model_validate(data | values)


def test_cached_images_are_those_decoded(image_folder: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(image_folder, tmp_path))
    for i in (0, 57, 109):
        assert np.array_equal(data.images[i], decode_image(read_content(data.images.where(i)), 32))
    sizes = {split: len(samples) for split, samples in data.splits.items()}
    assert sizes == {"train": 60, "val": 30, "test": 20}
    position, label = data.samples("test")[5]
    assert Path(data.images.where(position)).parent.name == data.classes[label]
    assert data.cache_note is None


def test_a_cache_far_larger_than_memory_is_opened_and_read(
    image_folder: Path, tmp_path: Path
) -> None:
    config = config_for(image_folder, tmp_path)
    images = load_image_data(config).images.id
    (pixels,) = tmp_path.glob("*/pixels.bin")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    os.truncate(pixels, 4 * memory)  # a hole, which takes no disk
    opened = open_cache(config, images)
    assert np.array_equal(opened[3], decode_image(read_content(opened.where(3)), 32))


def test_a_damaged_cache_is_named(image_folder: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(image_folder, tmp_path))
    os.truncate(data.images.cache / "pixels.bin", 100)
    with pytest.raises(DataError, match=r"cache of decoded images .* is damaged: .*remove the"):
        data.images[3]


def test_an_image_as_jpeg_stays_nearly_the_same_in_a_fraction_of_the_size() -> None:
    ramp = np.linspace(0, 255, 256, dtype=np.uint8)
    image = np.stack([np.tile(ramp, (256, 1)), np.tile(ramp[:, None], (1, 256))] * 2, axis=2)
    image = np.ascontiguousarray(image[..., :3])
    stored = to_jpeg(image)
    assert len(stored) < image.nbytes / 10
    difference = np.abs(from_jpeg(stored).astype(int) - image)
    assert difference.mean() < 2
    # Red and blue are not swapped.
    assert np.abs(from_jpeg(stored).mean((0, 1)) - image.mean((0, 1))).max() < 1


def test_as_jpegs_images_are_the_same_with_room_and_without(
    image_folder: Path, tmp_path: Path
) -> None:
    stored = load_image_data(config_for(image_folder, tmp_path / "a", cache_format="jpeg"))
    anew = load_image_data(
        config_for(image_folder, tmp_path / "b", cache_format="jpeg", cache_bytes=0)
    )
    raw = load_image_data(config_for(image_folder, tmp_path / "c"))
    assert (stored.images.num_not_stored, anew.images.num_not_stored) == (0, 110)
    for i in (0, 57, 109):
        assert np.array_equal(stored.images[i], anew.images[i])
        assert not np.array_equal(stored.images[i], raw.images[i])
        assert np.abs(stored.images[i].astype(int) - raw.images[i]).mean() < 8


def test_another_users_cache_built_before_is_read_where_nothing_can_be_written(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache"
    data = load_image_data(config_for(image_folder, place))
    (lock,) = place.glob("*.lock")
    lock.unlink()
    copy = Path(shutil.copytree(image_folder, tmp_path / "copy", copy_function=shutil.copyfile))

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    monkeypatch.setattr("filelock.FileLock", refuse)
    again = load_image_data(config_for(image_folder, place))
    assert np.array_equal(again.images[3], data.images[3])
    # On another node the images may lie elsewhere, with other times.
    elsewhere = load_image_data(config_for(copy, place))
    assert elsewhere.images.cache == data.images.cache
    assert Path(elsewhere.images.where(3)).is_relative_to(copy)
    (copy / "train" / "0" / "0.png").unlink()
    with pytest.raises(DataError, match=r"Read-only file system .*train\.data\.cache_dir"):
        load_image_data(config_for(copy, place))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_cache_on_a_read_only_disk_is_read(image_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    config = config_for(image_folder, place)
    data = load_image_data(config)
    script = (
        "import sys\n"
        "from sgformer.data_config import DataConfig\n"
        "from sgformer.data.image_data import load_image_data\n"
        "config = DataConfig.model_validate_json(sys.argv[1])\n"
        "print(load_image_data(config).images[3].sum())\n"
    )
    assert in_read_only(place, script, config.model_dump_json()) == str(data.images[3].sum())


def in_read_only(place: Path, script: str, argument: str) -> str:
    """What a Python script prints in a mount namespace in which the place is read-only."""
    import subprocess
    import sys

    mount = f'mount --bind {place} {place} && mount -o remount,bind,ro {place} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "-", sys.executable, "-c", script, argument]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_facts_of_a_cache_are_no_code(image_folder: Path, tmp_path: Path) -> None:
    data = load_image_data(config_for(image_folder, tmp_path))
    facts = json.loads((data.images.cache / "facts.json").read_text())
    assert facts["content"] == data.images.id.content
