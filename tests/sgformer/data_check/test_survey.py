from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgformer.data_check.survey import GREY, UNKNOWN, is_grey, survey
from sgformer.images.decoding import CLIPPED, DEEP, FIRST_FRAME, TRANSPARENT
from sgformer.images.pixel_rules import PixelRules
from sgformer.sources.source import source_of

COLOURS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def write(folder: Path) -> list[str]:
    """Writes images of all kinds; returns their names, sorted."""
    colours, grey = Image.fromarray(COLOURS), Image.fromarray(COLOURS[..., 0])
    colours.save(folder / "a.png")
    colours.rotate(90, expand=True).save(folder / "b.bmp")
    grey.convert("RGB").save(folder / "grey.png")
    grey.save(folder / "grey.jpg")
    colours.convert("RGBA").save(folder / "opaque.png")
    Image.fromarray(np.dstack([COLOURS, COLOURS[..., 0]])).save(folder / "seen through.png")
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(folder / "deep.png")
    grey.save(folder / "moving.gif", save_all=True, append_images=[colours.convert("L")])
    Image.fromarray(COLOURS).save(folder / "wrongly named.jpg", format="PNG")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    return sorted(path.name for path in folder.iterdir())


def test_what_each_image_is_comes_from_its_content(tmp_path: Path) -> None:
    names = write(tmp_path)
    told: list[tuple[int, int]] = []
    found = survey(
        source_of(tmp_path, names),
        names,
        PixelRules(max_value=1023),
        lambda *done: told.append(done),
    )
    assert [name for i, name in enumerate(names) if not found.readable[i]] == ["cut.png"]
    assert found.formats == {"PNG": 7, "BMP": 1, "GIF": 1, "JPEG": 1}
    assert found.traits == {
        GREY: 4, TRANSPARENT: 1, DEEP: 1, CLIPPED: 1, FIRST_FRAME: 1,
    }  # fmt: skip
    assert found.first[TRANSPARENT] == "seen through.png"
    assert found.first[GREY] == "deep.png"
    assert told == [(i, len(names)) for i in range(1, len(names) + 1)]


def test_the_shorter_side_comes_first_and_copies_have_one_content(tmp_path: Path) -> None:
    names = write(tmp_path)
    found = survey(source_of(tmp_path, names), names, PixelRules(), lambda *_: None)
    where = {name: i for i, name in enumerate(names)}
    for name in ("a.png", "b.bmp"):
        assert found.sides[where[name]].tolist() == [20, 30]
    assert found.contents[where["a.png"]] == found.contents[where["copy.png"]]
    assert found.contents[where["a.png"]] == found.contents[where["wrongly named.jpg"]]
    assert len(set(found.contents.tolist())) == len(names) - 2


def test_a_format_that_only_opencv_knows_counts_as_unknown(tmp_path: Path) -> None:
    import cv2

    assert cv2.imwrite(str(tmp_path / "a.tiff"), np.full((6, 9), 0.5, np.float64))
    found = survey(source_of(tmp_path, ["a.tiff"]), ["a.tiff"], PixelRules(), lambda *_: None)
    assert found.formats == {UNKNOWN: 1}
    assert found.sides.tolist() == [[6, 9]]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (19, 29)])
def test_one_coloured_pixel_makes_an_image_one_of_colours(row: int, column: int) -> None:
    image = np.repeat(COLOURS[..., :1], 3, axis=2)
    assert is_grey(image)
    image[row, column, 2] ^= 1
    assert not is_grey(image)
