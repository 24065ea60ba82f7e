"""Combines the winner's model with other finalists', as the driver of a run sees it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.delivery.combination import Combination, MemberTraining
from hpo.delivery.combining import NAME, Combined, Combining, combine
from hpo.delivery.evaluation import charged
from hpo.engine.observer import SearchObserver
from hpo.execution.cluster import TrialResources
from hpo.execution.retrain import run_on_cluster
from hpo.execution.training import BEST, Training
from hpo.run import Run
from hpo.run_folder import discard
from hpo.run_store import store_of
from hpo.selection.finalists import training_name
from hpo.selection.members import Numbered, member_candidates
from hpo.study.trial import TrialSummary
from sgformer.config import ModelConfig
from sgformer.data.image_cache import ImagesId


@dataclass(frozen=True)
class Made:
    """What is to be delivered.

    Attributes:
        combination: What became of the soup or ensemble.
        training: The training in whose folder the weights to deliver are; of a soup or ensemble
            nothing but its folder is its own.
    """

    combination: Combination
    training: Training


def combined_with_others(
    run: Run,
    trial: TrialSummary,
    training: Training,
    observer: SearchObserver,
    images: ImagesId | None,
    resources: TrialResources | None,
) -> Made:
    """Makes the soup or ensemble that `retrain.deliver` asks for, where trainings run.

    Args:
        run: The run.
        trial: The winner.
        training: The winner's training, which has come to its end.
        observer: Is told of the combinations that were evaluated.
        images: Identifies the images of the search; None: any images are accepted.
        resources: CPUs and GPUs on the connected Ray cluster; None: this process combines.
    """
    kind = run.config.retrain.deliver
    assert kind != "winner", "the caller has asked"
    every = member_candidates(run.config, run.study, run.trials, trial.number)
    there = [one for one in every if _is_there(run, training, one)]
    combination = Combination(
        asked=kind,
        delivered="winner",
        members=(MemberTraining(trial=trial.number, seed=training.config.seed),),
        num_candidates=len(there),
        num_missing=len(every) - len(there),
        metric=run.config.study.metric,
        starts_alike=_start_alike([train.model for _, train in there]),
    )
    if len(there) > 1:
        observer.phase(f"choosing the members of {'a soup' if kind == 'soup' else 'an ensemble'}")
        target = run.folder.retraining.absolute() / NAME
        how = Combining(
            kind, run.config.study.metric, run.config.retrain.members,
            tuple(_folder(run, one) for one in there), target, images, run.config.train.data,
            resources.gpus if resources else 0.0, training.store,
        )  # fmt: skip
        found = _combined(run, trial, how, observer, resources)
        assert found.choice is not None, "the combination has come to its end"
        candidates = [MemberTraining(trial=n, seed=train.seed) for n, train in there]
        combination = combination.with_choice(found.choice, candidates)
        if combination.is_delivered:
            _bring(training, target)
            training = replace(training, folder=target)
    observer.note(f"delivered is {combination.text()}")
    return Made(combination, training)


def _combined(
    run: Run,
    trial: TrialSummary,
    how: Combining,
    observer: SearchObserver,
    resources: TrialResources | None,
) -> Combined:
    discard(how.target)  # of a delivery that was cut short
    news, most = Combined(0), _num_evaluations(len(how.folders))
    if resources is None:
        if (store := store_of(run.config, run.folder)) is not None:
            for folder in how.folders:
                store.bring("/".join(folder.parts[-2:]), folder)
        told: Iterator[Combined] = combine(how)
    else:
        told = run_on_cluster(combine, (how,), resources, f"making the {how.kind}")
    with charged(run, trial.number, resources):
        for news in told:
            observer.step(most if news.choice else news.num_done, most)
    return news


def _num_evaluations(num_candidates: int) -> int:
    """The most evaluations of `choose_members`: of each candidate, and in three choices."""
    return 4 * (num_candidates - 1)


def _is_there(run: Run, training: Training, one: Numbered) -> bool:
    """Whether a training's best weights are kept."""
    other = replace(training, folder=_folder(run, one), store=store_of(run.config, run.folder))
    return other.has_best() or (other.folder / BEST).exists()


def _folder(run: Run, one: Numbered) -> Path:
    return run.folder.retraining.absolute() / training_name(*one)


def _start_alike(models: Sequence[ModelConfig]) -> bool:
    """Whether all trainings start from the same trained weights."""
    starts = {(one.pretrained, one.checkpoint) for one in models}
    return len(starts) == 1 and starts != {(False, None)}


def _bring(training: Training, target: Path) -> None:
    """Copies the combination from the store, if it is there."""
    if training.store is not None:
        target.mkdir(parents=True, exist_ok=True)
        training.store.open("/".join(target.parts[-2:])).fetch(target, (BEST,))
