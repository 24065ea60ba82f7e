"""Megabytes that the backward pass keeps of an image, and millions of parameters, by model.

    python benchmarks/activation_memory.py [--side 224] [MODEL ...]

The models are those of hpo/proposal/footprints.py, which has this table. It is what autograd saves
of two further images in a batch, in float32; parameters are not counted, nor what convolutions
need while they run.
"""

import argparse

import timm
import torch

import sgformer.model  # noqa: F401  registers SG-Former with timm
from hpo.proposal.footprints import FOOTPRINTS, PIXELS
from sgformer.catalog import model_facts


def kept_bytes(model: torch.nn.Module, num_images: int, side: int) -> int:
    """Bytes of the tensors that a forward pass of so many images keeps for the backward pass."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # the tensors are held, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(torch.randn(num_images, 3, side, side))
        assert logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=list(FOOTPRINTS))
    parser.add_argument("--side", type=int, default=PIXELS)
    arguments = parser.parse_args()
    for name in arguments.models:
        size = {"img_size": arguments.side} if model_facts(name).takes_img_size else {}
        model = timm.create_model(name, num_classes=10, **size).train()
        of_two, of_four = (kept_bytes(model, num, arguments.side) for num in (2, 4))
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        print(f"{name:32} {(of_four - of_two) / 2e6:6.0f} MB {millions:6.1f} M", flush=True)


if __name__ == "__main__":
    main()
