"""CPU-seconds of an export, its bytes, and how far the model of RGB images is from `predict`.

    python benchmarks/export.py [--model sg_former_b0] [--image-size 224] [--images FOLDER]

The first export makes the graph, the second takes it from the cache and gets other weights.
With a folder of photographs, each is compared at its own size and at four smaller ones.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch

from sgformer.config import TrainConfig
from sgformer.export.onnx_classifier import OnnxClassifier, RgbClassifier
from sgformer.export.onnx_export import export_onnx, metadata_of
from sgformer.export.onnx_file import save
from sgformer.export.proof import check_parity
from sgformer.export.rgb_graph import of_rgb_images
from sgformer.images.decoding import DEFAULT_RULES, decode_content
from sgformer.model.build import create_model

SCALES = (1.0, 0.5, 0.25, 0.12, 0.06)
CLASSES = tuple(map(str, range(10)))


def compare(plain: OnnxClassifier, rgb: RgbClassifier, folder: Path) -> None:
    diffs, same = [], []
    for path in sorted(folder.glob("*.jpg")):
        pixels = decode_content(path.read_bytes(), 256, DEFAULT_RULES).pixels
        assert pixels is not None, path
        for scale in SCALES:
            image = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            expected, actual = plain.probabilities(image), rgb.probabilities(image)
            diffs.append(np.abs(actual - expected).max())
            same.append(actual.argmax() == expected.argmax())
    print(f"{len(diffs)} images: largest difference of a probability {max(diffs):.2g}, ", end="")
    print(f"median {np.median(diffs):.2g}, same top-1 {np.mean(same):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sg_former_pico")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = {"image_size": args.image_size, "cache_dir": Path(folder) / "cache"}
        values = {"model": {"name": args.model}, "data": data}
        config = TrainConfig.model_validate(values).resolved()
        path = Path(folder) / "model.onnx"
        for which in ("first", "second"):
            model = create_model(config, len(CLASSES)).eval()
            with torch.no_grad():  # else equal tensors, such as zeros, would be stored once
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=1e-3)
            begin = time.process_time()
            export_onnx(model, path, config, CLASSES)
            print(f"{which} export: {time.process_time() - begin:.2f} CPU-seconds")
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        print(f"{path.stat().st_size:,} bytes, of the weights {weights:,}")
        noise = np.random.default_rng(0).standard_normal((8, 3, *2 * [args.image_size]))
        print(check_parity(model, OnnxClassifier(path), noise.astype(np.float32)))
        if args.images is not None:
            rgb = Path(folder) / "model.uint8.onnx"
            save(of_rgb_images(onnx.load(path), config.data), rgb, metadata_of(config, CLASSES))
            compare(OnnxClassifier(path), RgbClassifier(rgb), args.images)


if __name__ == "__main__":
    main()
