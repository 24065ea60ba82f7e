"""What a model that takes features reaches with both, by the image alone and by features alone."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sgformer.intervals import share_interval

HEAD: Final = ("split", "the model sees", "images", "top-1 (95 % interval)", "macro F1", "loss")
ALONE: Final = {"image_alone": "image alone", "features_alone": "features alone"}


def modality_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Rows below HEAD for each split; none for a model that takes images alone.

    Args:
        metrics: The metrics by split, as metrics.json has them.
    """
    for split, found in metrics.items():
        if not found or not any(found.get(name) for name in ALONE):
            continue
        yield _row(split, "both", found)
        for name, text in ALONE.items():
            if found.get(name):
                yield _row(split, text, found[name])


def _row(split: str, seen: str, found: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    num, top1 = found["num_images"], found["top1"]
    low, high = share_interval(top1, num)
    return (
        split,
        seen,
        str(num),
        f"{top1:.4f} ({low:.4f} to {high:.4f})",
        f"{found['macro_f1']:.4f}",
        f"{found['loss']:.4f}",
    )
