"""The values of a tiny search file."""

from pathlib import Path


def search_values(image_folder: Path, cache_dir: Path) -> dict:
    """Two parameters, the smallest model, four epochs a trial, two trials at a time."""
    return {
        "study": {"num_trials": 4},
        "scheduler": {"name": "asha", "min_epochs": 1, "reduction_factor": 2},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent_trials": 2},
        "retrain": {"seeds": 0},
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
