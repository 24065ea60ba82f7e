"""What earlier studies suggest to begin with: their best configurations, as this space has them.

They take the place of the first configurations that are spread over the space; from there on a
search goes by what it sees itself. So a study that misleads costs a few short trials.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from hpo.config.schema import DEFAULT_MIN_EPOCHS, SearchConfig
from hpo.config.search_space import (
    CategoricalParameter,
    Params,
    Space,
    apply_params,
    counts,
    default_params,
    sampling_order,
    value_at,
)
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstLevel, choose_first_level
from hpo.selection.finalists import predicted_ranking
from hpo.study.storage import storage_exists, without_password
from hpo.study.study import SearchStudy
from hpo.surrogate.encoding import UnitCube
from sgformer.errors import ConfigError

# As many as freeze_thaw draws at random before its model has anything to go by.
NUM_PROPOSALS: Final = 5
# Of a search's last trials many are nearly the same: in no coordinate as far apart as this.
MIN_DISTANCE: Final = 0.1


def warm_start_params(config: SearchConfig, storage: str | None = None) -> tuple[Params, ...]:
    """The best configurations of `study.warm_start`'s studies, in turns, none nearly the same.

    Nor nearly the default, which is tried in any case.

    Args:
        config: Of the search that is to begin.
        storage: Its storage's URL with the password, for studies in the same database.

    Raises:
        StudyError: A study is not there, or cannot be read.
        ConfigError: No configuration of a study lies in the space.
    """
    default = default_params(config.train, config.space)
    sources = config.study.warm_start
    return different(
        config.space, default, [tuple(_proposals(config, source, storage)) for source in sources]
    )


def first_level_of_earlier(config: SearchConfig, storage: str | None = None) -> FirstLevel | None:
    """Where `study.warm_start`'s curves say that trials are first to be compared.

    Only trainings as long as this search's, of the same objective, tell. None: nothing does, or
    the search file says it.

    Raises:
        StudyError: A study is not there, or cannot be read.
    """
    name, max_epochs = config.scheduler.name, config.train.max_epochs
    if config.scheduler.min_epochs is not None or name == "none":
        return None
    studies = []
    for source in config.study.warm_start:
        study, earlier = _open(source, storage)
        if (earlier.train.max_epochs, earlier.study.metric) == (max_epochs, config.study.metric):
            studies.append([trial.curve_to(max_epochs) for trial in study.trials()])
    default = None if name == "freeze_thaw" else DEFAULT_MIN_EPOCHS
    chosen = choose_first_level(studies, max_epochs, default)
    return chosen and chosen.model_copy(update={"is_of_earlier_studies": True})


def different(
    space: Space, default: Params, rankings: Sequence[Sequence[Params]]
) -> tuple[Params, ...]:
    """The first of several rankings, in turns, that differ from each other and the default."""
    cube, chosen = UnitCube(space), [default]
    for params in itertools.chain.from_iterable(itertools.zip_longest(*rankings)):
        if params is None or len(chosen) > NUM_PROPOSALS:
            continue
        gaps = [np.abs(cube.encode(params) - cube.encode(other)).max() for other in chosen]
        if min(gaps) >= MIN_DISTANCE:
            chosen.append(params)
    return tuple(chosen[1:])


def _proposals(config: SearchConfig, source: str, storage: str | None) -> Iterator[Params]:
    """A study's configurations as the space has them, the most promising first."""
    study, earlier = _open(source, storage)
    trials = study.trials()
    by_number = {trial.number: trial for trial in trials}
    num_found = 0
    ranking = predicted_ranking(
        earlier, trials, study.metadata.model_state, study.metadata.first_levels
    )
    for number in ranking:
        train = apply_params(earlier.train, by_number[number].params, source)
        params = _nearest(config.space, {path: value_at(train, path) for path in config.space})
        if params is not None:
            num_found += 1
            yield params
    if not num_found:
        raise ConfigError(
            f"study.warm_start: of the {len(trials)} trials of {source} none has a value and "
            "choices that this space has; leave it out, or add its choices to space"
        )


def _nearest(space: Space, values: Params) -> Params | None:
    """The params nearest to a configuration; None where the space lacks one of its choices."""
    params: Params = {}
    for path, parameter in sampling_order(space):
        if not counts(parameter, params):
            continue
        value = values[path]
        if isinstance(parameter, CategoricalParameter):
            if value not in parameter.choices:
                return None
        elif not isinstance(value, (int, float)):
            return None
        else:
            value = min(max(value, parameter.low), parameter.high)
        params[path] = value
    cube = UnitCube(space)
    return cube.decode(cube.encode(params))


def _open(source: str, storage: str | None) -> tuple[SearchStudy, SearchConfig]:
    """A run folder's study, or URL#STUDY."""
    url, has_name, name = source.rpartition("#")
    if not has_name:
        if re.match(r"[a-z0-9+]+:", source):
            raise ConfigError(
                f"study.warm_start: {source!r} names no study of the database; write URL#STUDY"
            )
        run = RunFolder(Path(source).expanduser())
        if not run.search_file.is_file():
            raise StudyError(
                f"study.warm_start: not a run folder: {run.path} has no search.yaml; give one, or "
                "URL#STUDY"
            )
        config = run.load_config()
        url, name = run.storage_url(config), config.study.name
    elif not re.match(r"[a-z0-9+]+:", url):
        raise ConfigError(
            f"study.warm_start: {url!r} of {source!r} is no storage's URL, such as "
            "sqlite:////runs/a/study.db"
        )
    if storage is not None and without_password(storage) == url:
        url = storage
    if not storage_exists(url):
        raise StudyError(f"study.warm_start: no file {without_password(url)} ({source})")
    return SearchStudy.of_search(url, name)
