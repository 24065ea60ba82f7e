"""Builds verdicts on finalists from given values on fresh seeds."""

from hpo.selection.verdict import FreshTraining, Verdict, judge
from sgformer.config import Metric

CLEAR: dict[int, list[float | None]] = {7: [0.81, 0.83], 4: [0.6, 0.62], 0: [0.5, 0.51]}


def trainings(
    values: dict[int, list[float | None]], best_epoch: int = 8, max_epochs: int = 8
) -> list[FreshTraining]:
    num_seeds = len(next(iter(values.values())))
    return [
        FreshTraining(
            number, i + 1, of_seeds[i], best_epoch, max_epochs, max_epochs, 1.0, 0.0
        )
        for i in range(num_seeds)
        for number, of_seeds in values.items()
    ]  # fmt: skip


def verdict_on(
    values: dict[int, list[float | None]],
    metric: Metric = "val_top1",
    num_val_images: int = 10_000,
    fold_ratio: float | None = None,
) -> Verdict:
    verdict = judge(list(values), trainings(values), metric, num_val_images, fold_ratio)
    assert verdict is not None
    return verdict
