"""Accuracy and time of searches on real images: our search against a plain Ray Tune script.

    python benchmarks/real_search.py [--data digits|fashion] [--seeds 3] [--first-seed 0]
        [--epochs 72] [--max-epochs 12] [--slots 2] [--sides ours,plain,plain+default]
        [--work-dir DIR] [--output FILE.json]

All sides use the space and training of search_spaces/digits.yaml (learning rate, two dropout
rates; one thread a trial), with sg_former_micro among the models, a default learning rate of 1e-3,
weight decay 0.05 and the crops of augmentation mild, on scikit-learn's digits (1,200 train, 300
val, 297 test images) or 6,000 images of Fashion-MNIST (4,000, 1,000, 1,000; Debian's package
dataset-fashion-mnist). Each side trains `--epochs` epochs in all, on the same decoded images, and
ends a trial early by early_stopping. Then the same code retrains and tests the best trial.

`ours` is run_search with its default scheduler, freeze_thaw. `plain` is a script as users write
it: a function trainable around our trainer, OptunaSearch (TPE), ASHAScheduler, reused actors, as
many trials as the budget allows, no checkpoints; it delivers the trial with the best value of any
epoch. `plain+default` tries the default configuration first, as ours does. Each side runs in a
fresh process; the order of the sides alternates from seed to seed, and a seed is that of sampler
and training. `search s` ends where the retraining starts, `whole s` with the process. `export s`
is the part of ours that exports to ONNX, checks the export and writes a report. On a busy machine
OMP_NUM_THREADS=1 keeps the threads of the retrainings from waiting for one another.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig

ROOT: Final = Path(__file__).parents[1]
FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
SIDES: Final = ("ours", "plain", "plain+default")
SPLITS: Final = {"train": 4000, "val": 1000, "test": 1000}  # images of Fashion-MNIST
RETRAINING: Final = "retraining"
EXPORTING: Final = "exporting"


@dataclass(frozen=True)
class Result:
    """Measurements of one side's search.

    Attributes:
        test_top1, val_top1: The retrained model's accuracy, 0..1.
        best_value: The best val_top1 of a trial, 0..1.
        search_seconds: From the start of the process to the start of the retraining.
        whole_seconds: From the start of the process to its end.
        export_seconds: The part of whole_seconds after retraining and test; only for `ours`.
        num_epochs: Epochs that the search trained.
        num_trials: Trials that the search started.
    """

    test_top1: float
    val_top1: float
    best_value: float
    search_seconds: float
    whole_seconds: float
    export_seconds: float
    num_epochs: int
    num_trials: int

    def row(self) -> str:
        return (
            f"{self.test_top1:10.4f} {self.val_top1:9.4f} {self.best_value:9.4f}"
            f" {self.search_seconds:9.1f} {self.whole_seconds:8.1f} {self.export_seconds:9.1f}"
            f" {self.num_epochs:7} {self.num_trials:7}"
        )


HEADER: Final = (
    f"{'seed':6} {'side':14} {'test top-1':>10} {'val top-1':>9} {'best val':>9}"
    f" {'search s':>9} {'whole s':>8} {'export s':>9} {'epochs':>7} {'trials':>7}"
)


def write_fashion(folder: Path) -> None:
    """Writes 6,000 PNG images, equally many of each class, unless the folder exists."""
    if folder.is_dir():
        return
    import cv2
    from sklearn.model_selection import train_test_split

    if not FASHION.is_dir():
        sys.exit(f"error: no folder {FASHION}; apt-get install dataset-fashion-mnist")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    images, labels = read_fashion("train")
    train, val = train_test_split(
        range(len(labels)), train_size=SPLITS["train"], test_size=SPLITS["val"],
        stratify=labels, random_state=0,
    )  # fmt: skip
    test_images, test_labels = read_fashion("t10k")
    test, _ = train_test_split(
        range(len(test_labels)), train_size=SPLITS["test"], stratify=test_labels, random_state=0
    )
    for name, pixels, classes, chosen in (
        ("train", images, labels, train),
        ("val", images, labels, val),
        ("test", test_images, test_labels, test),
    ):
        for i in chosen:
            target = temporary / name / str(classes[i])
            target.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target / f"{i:05}.png"), pixels[i])
    temporary.rename(folder)


def read_fashion(split: str) -> tuple[Any, Any]:
    """Images (n, 28, 28) and labels (n,), both uint8, from the Debian package's IDX files."""
    import numpy as np

    def read(name: str, header: int) -> Any:
        content = gzip.decompress((FASHION / f"{split}-{name}-ubyte.gz").read_bytes())
        return np.frombuffer(content, np.uint8, offset=header)

    return read("images-idx3", 16).reshape(-1, 28, 28), read("labels-idx1", 8)


def search_config(
    arguments: argparse.Namespace, images: Path, cache: Path, seed: int
) -> "SearchConfig":
    from hpo.config.loading import load_search_config

    overrides = [
        "study.name=real",
        f"study.seed={seed}",
        f"study.num_trials={arguments.epochs}",  # so only the epochs limit the search
        # total_epochs also pays for the winner's retraining.
        f"budget.total_epochs={arguments.epochs + arguments.max_epochs}",
        "space.model.name.choices=[sg_former_pico, sg_former_nano, sg_former_micro]",
        "train.optimizer.learning_rate=1.0e-3",
        "train.optimizer.weight_decay=0.05",
        "train.augmentation={policy: mild}",
        "scheduler={}",  # the default scheduler, freeze_thaw
        "retrain.seeds=0",  # `plain` does not compare finalists on fresh seeds either
        f"resources.max_concurrent_trials={arguments.slots}",
        f"train.seed={seed}",
        f"train.max_epochs={arguments.max_epochs}",
        f"train.data.cache_dir={cache}",
    ]
    return load_search_config(ROOT / "search_spaces" / "digits.yaml", overrides, images)[0]


def run_ours(config: "SearchConfig", folder: Path) -> None:
    from hpo.search import run_search

    class Watch:
        """An observer that writes phases, trials and epochs to the folder's notes."""

        def phase(self, text: str) -> None:
            note(folder, phase=text.split()[0], at=time.time())

        def trial_started(self, number: int, params: object, num_epochs: int) -> None:
            note(folder, trials=int(num_epochs == 0))

        def epoch(self, number: int, epoch: int, value: float) -> None:
            note(folder, epochs=1)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args: None

    run = run_search(config, folder, Watch())
    assert run.winner is not None
    note_result(folder, run.winner.value, json.loads(run.files.metrics.read_text()))


def run_plain(config: "SearchConfig", folder: Path, *, default_first: bool) -> None:
    """Runs the plain Ray Tune script that users write themselves."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    from hpo.config.search_space import apply_params, default_params

    def train(params: dict[str, Any]) -> None:
        import torch

        from sgformer.data.image_data import load_image_data
        from sgformer.training.trainer import Trainer

        torch.set_num_threads(1)
        note(folder, trials=1)
        train_config = apply_params(config.train, params, "plain").resolved()
        trainer = Trainer(train_config, load_image_data(train_config.data))
        for metrics in trainer.epochs():
            note(folder, epochs=1)
            tune.report({"val_top1": metrics.val_top1})

    class EpochBudget(tune.Stopper):
        """Ends the search when the budget of epochs is spent."""

        def __init__(self, num_epochs: int) -> None:
            self._num_left = num_epochs

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self._num_left -= 1
            return False

        def stop_all(self) -> bool:
            return self._num_left <= 0

    assert config.budget.total_epochs is not None
    first = [default_params(config.train, config.space)] if default_first else None
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space=plain_space(config),
        tune_config=tune.TuneConfig(
            metric="val_top1", mode="max", num_samples=config.study.num_trials,
            search_alg=OptunaSearch(seed=config.study.seed, points_to_evaluate=first),
            scheduler=ASHAScheduler(
                max_t=config.train.max_epochs, grace_period=2, reduction_factor=3
            ),
            max_concurrent_trials=config.resources.max_concurrent_trials, reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray"), verbose=0,
            stop=EpochBudget(config.budget.total_epochs - config.train.max_epochs),
        ),
    ).fit()  # fmt: skip
    best = results.get_best_result(scope="all")
    ray.shutdown()
    assert best.metrics_dataframe is not None
    assert best.config is not None
    value = float(best.metrics_dataframe["val_top1"].max())
    note_result(folder, value, retrain_and_test(config, best.config, folder))


def plain_space(config: "SearchConfig") -> dict[str, Any]:
    """The search file's space in Ray Tune's notation."""
    from ray import tune

    from hpo.config.search_space import CategoricalParameter, FloatParameter

    space: dict[str, Any] = {}
    for path, parameter in config.space.items():
        if isinstance(parameter, CategoricalParameter):
            space[path] = tune.choice(list(parameter.choices))
            continue
        assert isinstance(parameter, FloatParameter)
        if parameter.log:
            space[path] = tune.loguniform(parameter.low, parameter.high)
        elif parameter.step:
            space[path] = tune.quniform(parameter.low, parameter.high, parameter.step)
        else:
            space[path] = tune.uniform(parameter.low, parameter.high)
    return space


def retrain_and_test(
    config: "SearchConfig", params: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Retrains params as our search retrains a winner; returns the metrics of all splits."""
    from hpo.delivery.evaluation import evaluate_checkpoint
    from hpo.execution.retrain import retrain_epochs
    from hpo.execution.training import Training
    from hpo.selection.finalists import retrain_config

    note(folder, phase=RETRAINING, at=time.time())
    training = Training(retrain_config(config, params), folder / RETRAINING / "best")
    for _ in retrain_epochs(training):
        pass
    *_, last = evaluate_checkpoint(training.folder / "best.safetensors")
    assert last.metrics is not None, "the last one has the metrics"
    return last.metrics


def note(folder: Path, **values: object) -> None:
    with (folder / "notes").open("a") as file:
        file.write(json.dumps(values) + "\n")


def note_result(folder: Path, best_value: float | None, metrics: dict[str, Any]) -> None:
    tops = {f"{split}_top1": metrics[split]["top1"] for split in ("val", "test")}
    note(folder, best_value=best_value, **tops)


def measure(side: str, config_file: Path, work: Path) -> Result:
    """Runs one side in a fresh process; returns its measurements."""
    folder = Path(tempfile.mkdtemp(prefix=f"{side}-", dir=work))
    start = time.time()
    with (folder / "log").open("w") as log:
        process = subprocess.run(
            [sys.executable, __file__, "--side", side, config_file, folder],
            check=False, stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    end = time.time()
    if process.returncode:
        sys.exit(f"error: {side} failed:\n{(folder / 'log').read_text()[-4000:]}")
    notes = [json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    shutil.rmtree(folder)
    began = {n["phase"]: n["at"] for n in notes if "phase" in n}
    (found,) = (n for n in notes if "best_value" in n)
    return Result(
        **found,
        search_seconds=began[RETRAINING] - start,
        whole_seconds=end - start,
        export_seconds=end - began[EXPORTING] if EXPORTING in began else 0.0,
        num_epochs=sum(n.get("epochs", 0) for n in notes),
        num_trials=sum(n.get("trials", 0) for n in notes),
    )


def median(results: list[Result]) -> Result:
    columns = {name: [asdict(r)[name] for r in results] for name in asdict(results[0])}
    return Result(**{name: statistics.median(values) for name, values in columns.items()})


def compare(arguments: argparse.Namespace, work: Path) -> dict[str, list[Result]]:
    """Runs all sides for all seeds, and prints their results."""
    from hpo.cli.demo import write_digits
    from hpo.config.loading import dump_search_config
    from sgformer.data.image_data import load_image_data

    images, cache = work / f"{arguments.data}-images", work / "cache"
    write_digits(images) if arguments.data == "digits" else write_fashion(images)
    results: dict[str, list[Result]] = {side: [] for side in arguments.sides}
    print(
        f"{arguments.data}: {arguments.epochs} epochs a search, {arguments.max_epochs} a trial "
        f"at most, {arguments.slots} slots, {os.cpu_count()} cores\n{HEADER}"
    )
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        config = search_config(arguments, images, cache, seed)
        load_image_data(config.train.resolved().data)
        config_file = work / "search.yaml"
        config_file.write_text(dump_search_config(config))
        for side in arguments.sides[:: 1 if seed % 2 == 0 else -1]:
            results[side].append(measure(side, config_file, work))
            print(f"{seed:<6} {side:14} {results[side][-1].row()}", flush=True)
    for side, found in results.items():
        print(f"{'median':6} {side:14} {median(found).row()}")
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=72, help="of a search, in all trials")
    parser.add_argument("--max-epochs", type=int, default=12, help="of a trial")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(SIDES[:2]))
    parser.add_argument("--work-dir", type=Path, help="keeps the images; default: a temporary one")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.sides) - set(SIDES)
    if unknown:
        parser.error(f"--sides: {unknown.pop()!r} is none of {', '.join(SIDES)}")
    return arguments


def run_side(side: str, config_file: Path, folder: Path) -> None:
    from hpo.config.loading import load_search_config

    config, _ = load_search_config(config_file)
    if side == "ours":
        run_ours(config, folder)
    else:
        run_plain(config, folder, default_first=side == "plain+default")


def main() -> None:
    arguments = parse()
    if arguments.side:
        side, config_file, folder = arguments.side
        run_side(side, Path(config_file), Path(folder))
        return
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work_dir or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        results = compare(arguments, work)
    if arguments.output:
        settings = {
            name: getattr(arguments, name)
            for name in ("data", "first_seed", "epochs", "max_epochs", "slots")
        }
        found = {side: [asdict(r) for r in results[side]] for side in results}
        values = {**settings, "num_cores": os.cpu_count(), "results": found}
        arguments.output.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
