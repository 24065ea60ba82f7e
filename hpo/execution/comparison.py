"""Trains the finalists on fresh seeds, several at a time, and stores the results in the study."""

import contextlib
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpo.config.objectives import Objective
from hpo.config.schema import SearchConfig
from hpo.engine.budget import Budget
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import TrialResources
from hpo.execution.gpu_share import resources_for
from hpo.execution.int8_drop import INT8_DROP, int8_images
from hpo.execution.placement import PlacementWatch
from hpo.execution.retrain import retrain_all_on_cluster
from hpo.execution.searched_images import SearchedImages
from hpo.execution.training import Training
from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from hpo.run_store import store_of
from hpo.run_teachers import teachers_of
from hpo.run_weights import weights_of
from hpo.selection.affordable import cut_text, finalists_within_budget
from hpo.selection.finalists import (
    Finalists,
    as_asked,
    limits_of,
    read_finalists,
    read_verdict,
    training_name,
    trainings_of,
    trainings_without_teacher,
)
from hpo.selection.members import is_delivered_as_asked, may_be_member, member_candidates
from hpo.selection.verdict import FreshTraining, Verdict
from hpo.study.study import SearchStudy
from sgformer.config import Metric, TrainConfig
from sgformer.data.image_cache import ImagesId


def compare_finalists(
    config: SearchConfig,
    run: RunFolder,
    study: SearchStudy,
    images: SearchedImages,
    resources: TrialResources,
    observer: SearchObserver,
) -> None:
    """Chooses the finalists, unless the study has them, and trains them on the connected Ray.

    An interrupted training resumes from its checkpoint; a training in the study is not repeated.
    Checkpoints of the first seed stay in the run's `retraining` folder, because the winner's
    model is delivered from there; of other seeds the best weights stay if `retrain.deliver` may
    combine them, and else nothing. A winner with a teacher is trained without it, too, as far as
    the budget has room.

    Raises:
        RunError: A training's processes died more often than `study.max_retries` allows.
    """
    budget = Budget.of_study(config, study, resources.num_of_largest)
    finalists = _choose(config, study, images, budget, observer)
    done = study.metadata.fresh_trainings
    everything = tuple(trainings_of(config, study.trials(), finalists))
    due = [(n, train) for n, train in everything if training_name(n, train) not in done]
    kept = partial(may_be_member, config, finalists)
    train = _Trainings(config, run, study, images.id, resources, observer, budget, kept)
    if due:
        num = len(finalists.numbers)
        observer.phase(f"comparing {num} finalist{'s' * (num > 1)} on {_seeds(finalists)}")
        train(due, kept_seed=everything[0][1].seed)
    verdict = read_verdict(config, study, study.trials())
    if verdict is not None:
        train.lost_members(verdict)
        train.without_teacher(finalists, verdict)


def _seeds(finalists: Finalists) -> str:
    num_seeds = finalists.num_seeds
    return "one fresh seed" if num_seeds == 1 else f"{num_seeds} fresh seeds"


@dataclass(frozen=True)
class _Trainings:
    """Runs trainings on fresh seeds, and stores the results in the study."""

    config: SearchConfig
    run: RunFolder
    study: SearchStudy
    images: ImagesId
    resources: TrialResources
    observer: SearchObserver
    budget: Budget
    is_kept: Callable[[TrainConfig], bool]

    def without_teacher(self, finalists: Finalists, verdict: Verdict) -> None:
        """Trains the winner without its teacher, if it has one and the budget has room."""
        metadata, trials = self.study.metadata, self.study.trials()
        alone = trainings_without_teacher(as_asked(self.config, finalists), trials, verdict)
        due = [one for one in alone if training_name(*one) not in metadata.fresh_trainings]
        if due and not self._lets_train(due):
            metadata.alone_left_out = limits_of(self.config)
            self.observer.note("the budget leaves no room to train the winner without its teacher")
        elif due:
            self.observer.phase(f"training the winner without its teacher on {_seeds(finalists)}")
            self(due, kept_seed=None, keeps_members=False)

    def lost_members(self, verdict: Verdict) -> None:
        """Trains anew, for a soup or ensemble, what an earlier delivery has removed."""
        trials, best = self.study.trials(), ModelFiles(self.run.best)
        winner = next(trial for trial in trials if trial.number == verdict.winner)
        if not best.is_delivered or is_delivered_as_asked(self.config, best, winner):
            return
        first, *others = member_candidates(self.config, self.study, trials, verdict.winner)
        store = store_of(self.config, self.run)
        due = [
            one
            for one in others
            if not Training(one[1], _folder(self.run, *one), store=store).has_best()
        ]
        if due and not self._lets_train(due):
            self.observer.note(
                f"the budget leaves no room to train {len(due)} models again, which an earlier "
                f"delivery has removed, for {self.config.retrain.deliver}"
            )
        elif due:
            self.observer.phase(f"training {len(due)} models again, which were removed")
            self(due, kept_seed=first[1].seed)

    def _lets_train(self, due: Sequence[tuple[int, TrainConfig]]) -> bool:
        """Whether the budget has room, after what this search has trained just now."""
        now = Budget.of_study(self.config, self.study, self.resources.num_of_largest)
        return now.lets_train([number for number, _ in due])

    def __call__(
        self,
        due: Sequence[tuple[int, TrainConfig]],
        kept_seed: int | None,
        *,
        keeps_members: bool = True,
    ) -> None:
        """Runs the trainings `due`; keeps the checkpoints of a seed, and weights of members.

        What a training reached stays in the study if it is trained again.
        """
        done = self.study.metadata.fresh_trainings
        told = _train(self.config, self.run, due, self.images, self.resources, self.observer)
        with contextlib.closing(told):
            for number, training, ended in told:
                name = training_name(number, training.config)
                if name not in done:
                    self.study.metadata.add_fresh_training(name, asdict(ended))
                else:
                    num_gpus = ended.gpu_seconds / ended.seconds if ended.seconds else 0.0
                    self.study.metadata.add_retraining(
                        number, ended.num_epochs, ended.seconds, num_gpus
                    )
                self.study.metadata.seconds_searched = self.budget.seconds
                self.observer.finalist_trained(number, ended.seed, ended.value)
                if ended.seed == kept_seed:
                    continue
                if keeps_members and self.is_kept(training.config):
                    training.keep_best_alone()
                else:
                    training.discard()


def _train(
    config: SearchConfig,
    run: RunFolder,
    due: Sequence[tuple[int, TrainConfig]],
    images: ImagesId,
    resources: TrialResources,
    observer: SearchObserver,
) -> Generator[tuple[int, Training, FreshTraining]]:
    """Runs the trainings `due`; yields number, training and result of each one when it ends."""
    each = [resources_for(train, resources) for _, train in due]
    trainings = [
        Training(
            train,
            _folder(run, n, train),
            images,
            own.num_gpus,
            weights_of(run, train.model),
            teachers_of(run, train),
            mark=run.mark(),
            store=store_of(config, run),
            int8_images=int8_images(config),
        ).with_known_epochs()
        for (n, train), own in zip(due, each, strict=True)
    ]
    curves: list[dict[int, dict[str, Any]]] = [{} for _ in due]
    lengths = [train.max_epochs for _, train in due]
    told = retrain_all_on_cluster(
        trainings,
        each,
        config.study.max_retries,
        PlacementWatch(config.resources, observer.note),
        config.resources.max_concurrent_trials,
    )
    for i, said in told:
        if isinstance(said, dict):
            curves[i][said["epoch"]] = said
        else:
            lengths[i] = len(curves[i])
            num_begun = trainings[i].num_begun()
            rows = tuple(curves[i].values())
            ended = fresh_training(*due[i], config.study.metric, rows, num_begun, each[i])
            if said is not None:
                observer.note(f"finalist {due[i][0]} is out on seed {ended.seed}: {said}")
                ended = replace(ended, value=None, best_epoch=None)
            yield due[i][0], trainings[i], ended
        observer.step(sum(map(len, curves)), sum(lengths))


def fresh_training(
    number: int,
    train: TrainConfig,
    metric: Metric,
    rows: Sequence[Mapping[str, Any]],
    num_begun: int,
    resources: TrialResources,
) -> FreshTraining:
    """The result of a finalist's training, as the study stores it.

    The value is the study's metric at the best epoch by `train.metric`, whose weights are kept.

    Args:
        number: The finalist's trial number.
        train: The configuration that was trained.
        metric: The study's metric.
        rows: One row of EpochMetrics for each epoch.
        num_begun: Epochs begun, including epochs repeated after a crash.
        resources: CPUs, GPUs and processes of the training.
    """
    values = {int(row["epoch"]): float(row[metric]) for row in rows}
    known = {int(row["epoch"]): float(row[train.metric]) for row in rows}
    best = Objective.named(train.metric).best_epoch(known)
    drop = next((row[INT8_DROP] for row in rows if INT8_DROP in row), None)
    seconds = num_begun * statistics.fmean(float(row["seconds"]) for row in rows) if rows else 0.0
    return FreshTraining(
        trial=number,
        seed=train.seed,
        value=None if best is None else values[best],
        best_epoch=best,
        num_epochs=num_begun,
        max_epochs=train.max_epochs,
        seconds=seconds,
        gpu_seconds=seconds * resources.gpus * resources.num_processes,
        int8_top1_drop=None if drop is None else float(drop),
    )


def _choose(
    config: SearchConfig,
    study: SearchStudy,
    images: SearchedImages,
    budget: Budget,
    observer: SearchObserver,
) -> Finalists:
    known = read_finalists(study)
    finalists = finalists_within_budget(
        config,
        study,
        images.facts["val"],
        images.fold_ratio,
        budget.lets_train,
        budget.keeps_to_share,
    )
    if finalists == known:
        return known
    if finalists.is_cut:
        observer.note(cut_text(config, finalists))
    study.metadata.finalists = finalists.model_dump(mode="json")
    return finalists


def _folder(run: RunFolder, number: int, train: TrainConfig) -> Path:
    return run.retraining.absolute() / training_name(number, train)
