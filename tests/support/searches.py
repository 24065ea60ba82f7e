"""The values of a tiny search file, and a finished search of such a file."""

from dataclasses import dataclass
from pathlib import Path

import yaml

DIVERGING = {"optimizer.learning_rate": 1e30, "model.drop_rate": 0.1}


def search_values(image_folder: Path, cache_dir: Path) -> dict:
    """A search file's values: two parameters, smallest model, four epochs a trial, two slots."""
    return {
        "study": {"num_trials": 4},
        "scheduler": {"name": "asha", "min_epochs": 1, "reduction_factor": 2},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent_trials": 2},
        "retrain": {"seeds": 0, "max_share": None},
        "space": {
            "optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.05},
        },
        "train": {
            "model": {"name": "sg_former_pico", "drop_rate": 0.1, "drop_path_rate": 0.0},
            "data": {
                "data_dir": str(image_folder),
                "image_size": 32,
                "crop_pct": 1.0,
                "cache_dir": str(cache_dir),
            },
            "augmentation": {"policy": "mild"},
            "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 1},
            "max_epochs": 4,
            "device": "cpu",
        },
    }


def write_search(path: Path, image_folder: Path, cache_dir: Path, **changes: dict) -> Path:
    """Writes a search file of eight trials, the second of which diverges.

    `changes` holds other values by section.
    """
    values = search_values(image_folder, cache_dir)
    values["study"] = {"num_trials": 8, "enqueue": [DIVERGING]}
    values["space"]["optimizer.learning_rate"] = {
        "type": "categorical",
        "choices": [2e-3, 1e-4, 1e30],
    }
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@dataclass(frozen=True)
class FinishedSearch:
    """A search that `run_search.py search` has brought to its end.

    Attributes:
        root: The folder of search_spaces/digits.yaml, the image folder digits/, and runs/digits/.
        search_file: The search file.
        folder: The run's folder; no test changes its content.
        out: Standard output of the program.
        err: Standard error of the program.
        listened_at: IP addresses at which it or one of its processes listened.
    """

    root: Path
    search_file: Path
    folder: Path
    out: str
    err: str
    listened_at: frozenset[str]
