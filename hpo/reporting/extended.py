"""What an extension forgets and learns, in words: for the command line, the report, the card."""

from collections.abc import Mapping
from typing import Any

from hpo.delivery.forgetting import read_forgetting
from hpo.model_files import ModelFiles
from sgformer.errors import listed


def extension_rows(files: ModelFiles) -> dict[str, str]:
    """Names and texts of what a delivered extension is; empty if the model is none."""
    told = read_forgetting(files)
    if told is None:
        return {}
    new = told["new_classes"]
    return {
        "extends": (
            f"{told['base']}, {told['num_old_classes']} classes, by {len(new)}: {listed(new)}"
            f"{_trained(told)}"
        ),
        "old classes": (
            f"val top-1 {told['before']:.4f} before, {told['after']:.4f} after "
            f"({told['num_old_images']} images)"
        ),
        "forgotten": (
            f"{told['forgetting']:.4f} ({told['low']:.4f} to {told['high']:.4f} with 95 %, over "
            "other val images)"
        ),
        "new classes": f"val top-1 {told['new']:.4f} ({told['num_new_images']} images)",
    }


def _trained(told: Mapping[str, Any]) -> str:
    return "" if told["seconds"] is None else f"; trained for {told['seconds']:.0f} s"
