"""Delivers the winner into best/, and the other trials of a Pareto front into front/."""

from collections.abc import Collection
from pathlib import Path

from hpo.delivery.retrain import discard_trainings, retrain_and_deliver
from hpo.engine.budget import Budget
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError
from hpo.execution.cluster import TrialResources
from hpo.model_files import ModelFiles
from hpo.run import Run
from hpo.run_folder import discard, finish_replacing
from hpo.selection.finalists import (
    has_candidates,
    late_bounds,
    winners_of,
)
from hpo.selection.members import is_delivered_as_asked
from hpo.study.trial import EndReason, TrialStatus, TrialSummary
from sgformer.data.image_cache import ImagesId


def deliver_winners(
    run: Run,
    observer: SearchObserver,
    images: ImagesId,
    resources: TrialResources | None = None,
) -> None:
    """Retrains and exports the winner or the selected trials, unless they are delivered already.

    The first trial always goes into best/; further trials of a front go into front/NUMBER, while
    the budget has room for their training.

    Args:
        run: A run whose trials and finalists have all been trained.
        observer: Is told of the trainings.
        images: Identifies the images of the search.
        resources: CPUs, GPUs and processes of a training on the connected Ray cluster; None:
            this process trains.

    Raises:
        RunError: No trial can be delivered, or a training gave no model.
    """
    chosen = winners_of(run.config, run.trials, run.verdict)
    if not chosen:
        raise RunError(without_a_winner(run))
    folders = {trial.number: run.folder.front / str(trial.number) for trial in chosen[1:]}
    folders[chosen[0].number] = run.folder.best
    for trial in chosen:
        folder = folders[trial.number]
        finish_replacing(folder)
        is_best = folder == run.folder.best
        if is_delivered_as_asked(run.config, ModelFiles(folder), trial):
            if is_best:  # a crash may have come before this was noted
                run.study.metadata.delivered_trial = trial.number
        elif is_best or _is_affordable(run, trial, observer):
            retrain_and_deliver(run, trial, observer, images, resources, folder, combines=is_best)
    discard_trainings(run)  # checkpoints of finalists that did not win
    _discard_others(run.folder.front, folders.values(), observer)


def _is_affordable(run: Run, trial: TrialSummary, observer: SearchObserver) -> bool:
    """Whether the budget has room to retrain a further trial of the front; a note tells if not."""
    budget = Budget.of_study(run.config, run.study)
    if budget.lets_train([trial.number]):
        return True
    observer.note(
        f"trial {trial.number} of the front is not retrained: the budget leaves no room "
        f"({budget.in_words()}); raise it and --resume"
    )
    return False


def _discard_others(front: Path, kept: Collection[Path], observer: SearchObserver) -> None:
    """Deletes the models of trials that are no longer on the front."""
    for path in front.glob("*") if front.is_dir() else ():
        if path not in kept and not discard(path):
            observer.note(f"{path} is of a trial that is not on the front; it cannot be deleted")


def without_a_winner(run: Run) -> str:
    """The error message when no trial can be delivered: the reason, and what to change."""
    name, status = run.config.study.name, f"see `status {run.folder.path}`"
    trained = [t for t in run.trials if t.outcome != TrialStatus.INFEASIBLE]
    num_failed = sum(trial.state == TrialStatus.FAIL for trial in trained)
    num_diverged = sum(t.attributes.get("end_reason") == EndReason.DIVERGED for t in trained)
    if num_diverged and num_diverged + num_failed == len(trained):
        rate = "optimizer.learning_rate"
        where = f"space.{rate}" if rate in run.config.space else f"train.{rate}"
        how_many = f"{num_diverged} of {len(trained)}" if num_failed else f"all {num_diverged}"
        others = " and the others failed" if num_failed else ""
        return (
            f"{how_many} trials of study {name!r} diverged (their loss became infinite or NaN)"
            f"{others}, so there is no winner; {status}; lower {where} and choose another "
            "--study-name"
        )
    late = " and ".join(map(str, late_bounds(run.config)))
    if late and run.config.compares_finalists and has_candidates(run.trials):
        return (
            f"no finalist of study {name!r} keeps to {late} on fresh seeds, so there is no "
            f"winner; {status}; widen the bound (study.constraints) and choose another "
            "--study-name, or deliver a trial all the same with `retrain --trial N`"
        )
    within = " within the constraints" if run.config.study.constraints else ""
    budget = Budget.of_study(run.config, run.study)
    taken = f" (taken: {budget.in_words()})" if budget.limits else ""
    return (
        f"no trial of study {name!r} ran to its end{within}, so there is no winner{taken}; "
        f"{status}; raise budget or study.num_trials and --resume, or choose another --study-name"
    )
