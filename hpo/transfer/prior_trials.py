"""Prior trials: another study's trials that a search could have run, as params of its space."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, apply_params, value_at
from hpo.config.space_checks import searchable_paths
from hpo.errors import StudyError
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from hpo.transfer.remap import Outside, remap
from sgformer.config import TrainConfig

# Settings that change a training's result little: any seed is as good as another.
SECONDARY: Final = ("seed", "channels_last", "compile")
UNSEARCHED: Final = (
    "data.val_fraction", "data.val_seed", "early_stopping.metric", "max_epochs",
)  # fmt: skip


@dataclass(frozen=True)
class Surrogate:
    """Trials of another study, with params of this search's space.

    Attributes:
        name: The study's name.
        num_trials: The number of all its trials.
        trials: Its trials that lie in the space and have a curve.
    """

    name: str
    num_trials: int
    trials: tuple[TrialSummary, ...]


def find_surrogate(
    config: SearchConfig, study: SearchStudy, other: SearchConfig, other_study: SearchStudy
) -> Surrogate:
    """The trials of another study, over the same images, that lie in a search's space.

    Raises:
        StudyError: The other study has another objective or other images, or none of its trials
            with a curve lies in the space.
    """
    _refuse_incomparable(config, study, other, other_study)
    trials = other_study.trials()
    seen = []
    for trial in trials:
        train = apply_params(other.train, trial.params, f"trial {trial.number}")
        params = params_of(config, train)
        if params is not None and trial.curve:
            seen.append(replace(trial, params=params))
    if not seen:
        different = list(_differences(config, other))
        raise StudyError(
            f"--surrogate: of the {len(trials)} trials of study {other.study.name!r} none with an "
            f"epoch lies in the space of study {config.study.name!r}"
            + "".join(f"\n  {line}" for line in different)
        )
    return Surrogate(other.study.name, len(trials), tuple(seen))


def params_of(config: SearchConfig, train: TrainConfig) -> Params | None:
    """The params with which a search runs this training, whatever its seed; None if none do."""
    values: Params = {path: value_at(train, path) for path in config.space}
    params = remap(values, config.space, Outside.REFUSED)
    if params is None:
        return None
    ours = apply_params(config.train, params, "simulate")
    secondary = {name: getattr(ours, name) for name in SECONDARY}
    theirs = apply_params(train, params, "simulate").model_copy(update=secondary)
    return params if ours.fingerprint() == theirs.fingerprint() else None


def _refuse_incomparable(
    config: SearchConfig, study: SearchStudy, other: SearchConfig, other_study: SearchStudy
) -> None:
    name, own = other.study.name, config.study.name
    if other.study.metric != config.study.metric:
        raise StudyError(
            f"--surrogate: study {name!r} is of {other.study.metric}, and study {own!r} of "
            f"{config.study.metric}; take one of the same objective"
        )
    images, own_images = other_study.metadata.images, study.metadata.images
    if None not in (images, own_images) and images != own_images:
        raise StudyError(
            f"--surrogate: study {name!r} was made over other images: {images}, and study "
            f"{own!r} over {own_images}"
        )


def _differences(config: SearchConfig, other: SearchConfig) -> Iterator[str]:
    """The settings that keep the other search's trials out of the space, one a line."""
    for path in (*searchable_paths(), *UNSEARCHED):
        here, there = _choices(config, path), _choices(other, path)
        if here != there:
            yield f"{path}: {there} there, {here} here"


def _choices(config: SearchConfig, path: str) -> str:
    if path in config.space:
        return f"searched in {config.space[path].describe()}"
    return repr(value_at(config.train, path))
