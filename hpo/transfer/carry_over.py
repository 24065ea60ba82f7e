"""Carries the trials of a search whose space has changed over to a new study."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpo.config.resumed import differences, with_former_defaults
from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, Space, value_at
from hpo.run_folder import RunFolder
from hpo.study.study import SearchStudy
from hpo.study.trial import CARRIED_OVER_FROM, TrialStatus, TrialSummary, origin
from hpo.transfer.remap import Outside, remap
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError


@dataclass(frozen=True)
class Continuation:
    """The study that a resumed search continues with.

    Attributes:
        config: The config of the search, named after the study.
        run: The study's run folder.
        predecessor: The run folder of the study whose trials are still to be carried over;
            None: none are left to carry over, or the space is unchanged.
    """

    config: SearchConfig
    run: RunFolder
    predecessor: RunFolder | None = None

    @property
    def begins(self) -> bool:
        """Whether the search has no trials of an earlier run, or of a predecessor."""
        return self.predecessor is None and not self.run.search_file.exists()


def continuation(config: SearchConfig, run: RunFolder) -> Continuation:
    """The run itself, or, if the space has changed, its successor: NAME-2, NAME-3, ...

    Raises:
        ConfigError: A parameter has changed its type.
    """
    name, predecessor = config.study.name, None
    for number in itertools.count(2):
        if not run.search_file.exists():
            return Continuation(config, run, predecessor)
        known = run.load_config()
        config = _named(config, run.path.name, config.study.storage or known.study.storage)
        config = with_former_defaults(known, config)
        if known.space == config.space or _differ_otherwise(known, config):
            return Continuation(config, run)  # other differences are refused on resuming
        _refuse_other_kinds(known.space, config.space, run)
        predecessor, run = run, RunFolder(run.path.with_name(f"{name}-{number}"))
        config = _named(config, run.path.name, config.study.storage)
    raise AssertionError


def _named(config: SearchConfig, name: str, storage: str | None) -> SearchConfig:
    study = config.study.model_copy(update={"name": name, "storage": storage})
    return config.model_copy(update={"study": study})


def _differ_otherwise(known: SearchConfig, config: SearchConfig) -> bool:
    return any(not line.startswith("space.") for line in differences(known, config))


def _refuse_other_kinds(old: Space, new: Space, run: RunFolder) -> None:
    lines = [
        f"  space.{path}: {old[path].type} -> {new[path].type}"
        for path in old.keys() & new.keys()
        if old[path].type != new[path].type
    ]
    if lines:
        raise ConfigError(
            "trials cannot be carried over to a parameter of another kind; choose another "
            f"--study-name; changed since {run.search_file} was written:\n" + "\n".join(lines)
        )


def carry_over(
    old: SearchStudy, new: SearchStudy, was: SearchConfig, now: Continuation
) -> tuple[int, int]:
    """Copies the old study's trials that lie in the new space, with their folders.

    Safe to repeat after a crash: no trial is copied twice.

    Args:
        old: The study whose trials are copied.
        new: The study that gets the copies.
        was: The config of the old study.
        now: The new study's config and folder, and the predecessor, which must be set.

    Returns:
        How many trials were carried over in all, and how many the old study has.
    """
    assert now.predecessor is not None
    trials, done = old.trials(), set(_sources(new.trials()))
    for trial in trials:
        params = carried_params(trial, was.space, now.config.space, now.config.train)
        if params is None or trial.number in done:
            continue
        folder = _copy_folder(trial, now.predecessor, now.run, len(new.trials()))
        attributes = {
            "checkpoint": str(folder.absolute() / "best.safetensors"),
            CARRIED_OVER_FROM: origin(was.study.name, trial),
        }
        new.add(trial, params, attributes)
        done.add(trial.number)
    if old.metadata.architectures:
        known = new.metadata.architectures
        new.metadata.architectures = {**old.metadata.architectures, **known}
    new.metadata.carried_from = {
        "study": was.study.name,
        "num_carried_over": len(done),
        "num_trials": len(trials),
    }
    old.metadata.carried_to = now.config.study.name
    return len(done), len(trials)


def _copy_folder(trial: TrialSummary, old: RunFolder, new: RunFolder, number: int) -> Path:
    """Copies the trial's folder, if it exists, to that of trial `number`; returns the new path."""
    source, target = old.trials / str(trial.number), new.trials / str(number)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def _sources(trials: tuple[TrialSummary, ...]) -> Iterator[int]:
    """The numbers in the old study of the trials that were carried over."""
    for trial in trials:
        if CARRIED_OVER_FROM in trial.attributes:
            yield int(trial.attributes[CARRIED_OVER_FROM]["number"])


def carried_params(
    trial: TrialSummary, old: Space, new: Space, base: TrainConfig
) -> Params | None:
    """The trial's params in the new space; None if its configuration lies outside.

    A parameter that is new in the space gets the base configuration's value. A parameter that is
    no longer in the space must have had the base configuration's value in the trial.
    """
    values: Params = {path: value_at(base, path) for path in (*old, *new)}
    values |= {path: trial.params[path] for path in old if path in trial.params}
    params = remap(values, new, Outside.REFUSED)
    if params is None:
        return None
    fixed = values.keys() - params.keys()
    if any(values[path] != value_at(base, path) for path in fixed):
        return None
    # A running trial is resumed from its checkpoint, so none of its values may change.
    is_as_it_was = all(values[path] == value for path, value in params.items())
    return None if trial.state == TrialStatus.RUNNING and not is_as_it_was else params
