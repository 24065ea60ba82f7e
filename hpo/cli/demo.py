"""The data of the demo: scikit-learn's handwritten digits as an image folder."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

IMAGES_NAME: Final = "digits-images"
NUM_VAL, NUM_TEST = 300, 297


def write_digits(folder: Path) -> None:
    """Writes the 1,797 scans (8x8 pixels, 17 grey levels) as PNGs, unless the folder exists."""
    if folder.is_dir():
        return
    import cv2
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rest = np.arange(len(digits.target))
    splits = {}
    for name, size in (("test", NUM_TEST), ("val", NUM_VAL)):
        rest, splits[name] = train_test_split(
            rest, test_size=size, stratify=digits.target[rest], random_state=0
        )
    splits["train"] = rest
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, indices in splits.items():
            for i in indices:
                target = temporary / name / str(digits.target[i])
                target.mkdir(parents=True, exist_ok=True)
                pixels = (digits.images[i] * 255 / 16).round().astype(np.uint8)
                cv2.imwrite(str(target / f"{i:04}.png"), pixels)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
