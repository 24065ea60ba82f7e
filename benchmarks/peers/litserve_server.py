"""Serves an exported model with LitServe and its batching, for benchmarks/serving.py.

PYTHONPATH=build/litserve python benchmarks/peers/litserve_server.py MODEL PORT SIZE SECONDS
"""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve

from sgformer.export.onnx_classifier import ModelImage, OnnxClassifier


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = OnnxClassifier(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> ModelImage:
        image = self.model.read(base64.b64decode(request["image"]))
        assert image is not None
        return image

    def batch(self, inputs: list[ModelImage]) -> list[ModelImage]:
        return inputs

    def predict(self, x: list[ModelImage]) -> list[dict[str, float]]:
        return [one.classes for one in self.model.predictions(x)]

    def unbatch(self, output: list[dict[str, float]]) -> list[dict[str, float]]:
        return output

    def encode_response(self, output: dict[str, float]) -> dict[str, Any]:
        likeliest = list(output.items())[:3]
        return {"classes": [{"class": name, "probability": share} for name, share in likeliest]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=int(sys.argv[3]), batch_timeout=float(sys.argv[4]))
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error",
               generate_client_file=False, num_api_servers=1)  # fmt: skip
