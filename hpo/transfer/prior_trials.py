"""Another study's trials as seen from a search: those whose training it could have run too."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, apply_params, counts, searchable_paths, value_at
from hpo.errors import StudyError
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from sgformer.config import TrainConfig

# Of a training, they change its result little: the seed is as good as another.
SECONDARY: Final = ("seed", "channels_last", "compile")
UNSEARCHED: Final = (
    "data.val_fraction", "data.val_seed", "early_stopping.metric", "max_epochs",
)  # fmt: skip


@dataclass(frozen=True)
class Surrogate:
    """Trials of another study, with params of this search's space.

    Attributes:
        name: The study's.
        num_trials: That it has.
        trials: Those of them that lie in the space and have a curve.
    """

    name: str
    num_trials: int
    trials: tuple[TrialSummary, ...]


def find_surrogate(
    config: SearchConfig, study: SearchStudy, other: SearchConfig, other_study: SearchStudy
) -> Surrogate:
    """What a study tells of a search of another space, over the same images.

    Raises:
        StudyError: It is of another objective or of other images, or no trial with a curve
            lies in the search's space.
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
    """The params that give a search this training, whatever its seed; None if none do."""
    values: Params = {path: value_at(train, path) for path in config.space}
    params = {path: values[path] for path, p in config.space.items() if counts(p, values)}
    if not all(config.space[path].contains(value) for path, value in params.items()):
        return None
    same = apply_params(config.train, params, "simulate")
    train = train.model_copy(update={name: getattr(same, name) for name in SECONDARY})
    return params if same.fingerprint() == train.fingerprint() else None


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
    """What keeps the other search's trials out of the space."""
    for path in (*searchable_paths(), *UNSEARCHED):
        here, there = _choices(config, path), _choices(other, path)
        if here != there:
            yield f"{path}: {there} there, {here} here"


def _choices(config: SearchConfig, path: str) -> str:
    if path in config.space:
        return f"searched in {config.space[path].describe()}"
    return repr(value_at(config.train, path))
