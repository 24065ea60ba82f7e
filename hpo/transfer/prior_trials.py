"""Prior trials: trials of another study that a search could have run, with params of its space."""

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

# Settings that hardly change a training's result, ignored when trainings are compared.
SECONDARY: Final = ("seed", "precision", "channels_last", "compile")
UNSEARCHED: Final = (
    "data.val_fraction", "data.val_seed", "early_stopping.metric", "max_epochs",
    "epoch_images", "eval_images",
)  # fmt: skip


@dataclass(frozen=True)
class Surrogate:
    """Trials of another study, with params of the search's space.

    Attributes:
        name: The other study's name.
        num_trials: How many trials the other study has in all.
        trials: Trials of the other study that lie in the space and have a learning curve.
    """

    name: str
    num_trials: int
    trials: tuple[TrialSummary, ...]


def find_surrogate(
    config: SearchConfig, study: SearchStudy, other: SearchConfig, other_study: SearchStudy
) -> Surrogate:
    """The trials of another study over the same images that lie in the search's space.

    Raises:
        StudyError: The other study has another metric or other images, or no trial with a
            learning curve that lies in the space.
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
    """The params for which a search runs this training, up to the seed; None: no such params."""
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
    """The settings in which the two searches differ, one line each."""
    for path in (*searchable_paths(), *UNSEARCHED):
        here, there = _choices(config, path), _choices(other, path)
        if here != there:
            yield f"{path}: {there} there, {here} here"


def _choices(config: SearchConfig, path: str) -> str:
    if path in config.space:
        return f"searched in {config.space[path].describe()}"
    return repr(value_at(config.train, path))
