"""Time of a search beyond its epochs: our search against a plain Ray Tune script.

    python benchmarks/trial_overhead.py [--trials 24] [--rounds 3] [--images small|all]

Three sides run the same kind of trials (sg_former_nano on scikit-learn's digits, 32 px, at most
four epochs, two slots, ASHA from epoch 1 with reduction factor 2, an Optuna sampler): our search,
a plain script (function trainable, OptunaSearch, ASHAScheduler, Ray's defaults), and the same
script with reuse_actors=True. All sides use our trainer and decoded images. Wall time ends with
the last trial and includes the start of the process. `small` has 60 training images, so that
nearly all time is overhead; `all` has 1,200, and an epoch takes some three seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_SLOTS, MAX_EPOCHS = 2, 4
SIDES = ("ours", "plain", "plain, reuse_actors")


def train_values(images: Path, cache: Path) -> dict[str, Any]:
    return {
        "model": {"name": "sg_former_nano", "drop_rate": 0.1, "drop_path_rate": 0.0},
        "data": {
            "data_dir": str(images), "image_size": 32, "crop_pct": 1.0, "cache_dir": str(cache),
            "num_workers": 0,
        },
        "augmentation": {"policy": "mild"},
        "optimizer": {"learning_rate": 2e-3, "batch_size": 20, "warmup_epochs": 1},
        "early_stopping": {"patience": None},
        "max_epochs": MAX_EPOCHS,
        "device": "cpu",
    }  # fmt: skip


def write_images(folder: Path, *, all_of_them: bool) -> None:
    if all_of_them:
        from hpo.cli.demo import write_digits

        write_digits(folder)
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from digits import write_image_folder

    write_image_folder(folder)


def run_ours(num_trials: int, images: Path, cache: Path, folder: Path) -> None:
    from hpo.config.schema import SearchConfig
    from hpo.config.search_space import default_params
    from hpo.execution.cluster import TrialResources, connected
    from hpo.execution.tuning import run_trials
    from hpo.run_folder import RunFolder
    from hpo.study.study import SearchStudy
    from sgformer.data.image_data import load_image_data

    class Watch:
        """An observer that notes when epochs end."""

        def epoch(self, number: int, epoch: int, value: float) -> None:
            note(folder, at=time.time())

        def __getattr__(self, name: str) -> Any:
            return lambda *args: None

    config = SearchConfig.model_validate(
        {
            "study": {"name": "tiny", "num_trials": num_trials},
            "scheduler": {"name": "asha", "min_epochs": 1, "reduction_factor": 2},
            "space": {
                "optimizer.learning_rate": {
                    "type": "float", "low": 1e-4, "high": 1e-2, "log": True,
                },
                "model.drop_rate": {"type": "float", "low": 0.0, "high": 0.5},
            },
            "train": train_values(images, cache),
        }
    )  # fmt: skip
    run = RunFolder(folder / "tiny")
    run.make()
    image_data = load_image_data(config.train.data)
    with connected(None):
        study = SearchStudy.create(run.storage_url(config), config.study, config.space)
        study.enqueue_first_trials(default_params(config.train, config.space))
        slots = TrialResources(1, 0.0, NUM_SLOTS)
        run_trials(config, run, study, image_data.images.id, slots, Watch())
        note(folder, end=time.time())
    for path in sorted(run.trials.glob("*/epochs.csv"), key=lambda path: int(path.parent.name)):
        header, *rows = (line.split(",") for line in path.read_text().splitlines())
        for row in rows:
            note(folder, seconds=float(row[header.index("seconds")]))


def run_plain(num_trials: int, images: Path, cache: Path, folder: Path, *, reuse: bool) -> None:
    """Runs the plain Ray Tune script that users write themselves."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def train(config: dict[str, Any]) -> None:
        import torch

        from sgformer.config import TrainConfig
        from sgformer.data.image_data import load_image_data
        from sgformer.training.trainer import Trainer

        torch.set_num_threads(1)
        values = train_values(images, cache)
        values["optimizer"]["learning_rate"] = config["learning_rate"]
        values["model"]["drop_rate"] = config["drop_rate"]
        train_config = TrainConfig.model_validate(values)
        trainer = Trainer(train_config, load_image_data(train_config.data))
        for metrics in trainer.epochs():
            note(folder, seconds=metrics.seconds, at=time.time())
            tune.report({"val_top1": metrics.val_top1})

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    space = {"learning_rate": tune.loguniform(1e-4, 1e-2), "drop_rate": tune.uniform(0.0, 0.5)}
    tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_top1", mode="max", num_samples=num_trials, search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=MAX_EPOCHS, grace_period=1, reduction_factor=2),
            max_concurrent_trials=NUM_SLOTS, reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    ).fit()  # fmt: skip
    note(folder, end=time.time())
    ray.shutdown()


def note(folder: Path, **values: float) -> None:
    with (folder / "notes").open("a") as file:
        file.write(json.dumps(values) + "\n")


def measure(side: str, num_trials: int, images: Path, cache: Path) -> dict[str, float]:
    """Runs one side in a fresh process; returns its measurements in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        subprocess.run(
            [sys.executable, __file__, "--side", side, str(num_trials), images, cache, folder],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        notes = [json.loads(line) for line in (Path(folder) / "notes").read_text().splitlines()]
    seconds = [n["seconds"] for n in notes if "seconds" in n]
    ends = [n["at"] for n in notes if "at" in n]
    (end,) = (n["end"] for n in notes if "end" in n)
    training = sum(seconds)
    # `steady` begins with the first epoch; the time before is reported as `start`.
    first_begin = min(ends) - seconds[0]
    steady = NUM_SLOTS * (max(ends) - first_begin)
    return {
        "wall": end - start,
        "start": first_begin - start,
        "training": training,
        "epochs": len(seconds),
        "beyond": max(0.0, steady - training) / num_trials,
        "share": max(0.0, 1 - training / steady),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", choices=("small", "all"), default="small")
    parser.add_argument("--side", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, num_trials, images, cache, folder = arguments.side
        if side == "ours":
            run_ours(int(num_trials), Path(images), Path(cache), Path(folder))
        else:
            reuse = side.endswith("reuse_actors")
            run_plain(int(num_trials), Path(images), Path(cache), Path(folder), reuse=reuse)
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        images, cache = Path(name) / "images", Path(name) / "cache"
        write_images(images, all_of_them=arguments.images == "all")
        from sgformer.config import TrainConfig
        from sgformer.data.image_data import load_image_data

        load_image_data(TrainConfig.model_validate(train_values(images, cache)).data)
        print(f"{arguments.trials} trials, {NUM_SLOTS} slots, {os.cpu_count()} cores")
        print(
            "side                  wall s  first epoch s  epochs  their s  s/trial beyond  share"
        )
        for _ in range(arguments.rounds):
            for side, measured in results.items():
                measured.append(measure(side, arguments.trials, images, cache))
                m = measured[-1]
                print(
                    f"{side:20} {m['wall']:7.1f} {m['start']:14.1f} {m['epochs']:7}"
                    f" {m['training']:8.1f} {m['beyond']:15.2f} {m['share']:6.1%}",
                    flush=True,
                )
    wall = {side: statistics.median(m["wall"] for m in found) for side, found in results.items()}
    for side in SIDES[1:]:
        print(f"wall, ours / {side}, medians: {wall['ours'] / wall[side]:.2f}")


if __name__ == "__main__":
    main()
