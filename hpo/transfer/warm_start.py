"""Warm starts: the best configurations of earlier studies, as params of this search's space.

A search tries these configurations first, in place of the initial space-filling ones; after that
only its own trials count. So a misleading earlier study costs only a few short trials.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from hpo.config.schema import DEFAULT_MIN_EPOCHS, SearchConfig
from hpo.config.search_space import (
    Params,
    Space,
    apply_params,
    default_params,
    value_within,
)
from hpo.errors import StudyError
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung, choose_first_rung
from hpo.selection.ranking import predicted_ranking
from hpo.study.storage import storage_exists, without_password
from hpo.study.study import SearchStudy
from hpo.study.trial import TrialSummary
from hpo.surrogate.encoding import UnitCube
from hpo.transfer.remap import Outside, remap
from sgformer.config import TrainConfig
from sgformer.errors import ConfigError

# As many as the random trials of freeze_thaw before its surrogate is first fitted.
NUM_PROPOSALS: Final = 5
# Two configurations are nearly the same if all their choices are equal and each pair of numbers
# differs by less than this share of the parameter's range. Many late trials of a search are.
MIN_DISTANCE: Final = 0.1


def warm_start_params(config: SearchConfig, storage: str | None = None) -> tuple[Params, ...]:
    """The best configurations of the studies in `study.warm_start`, taken from each in turn.

    Near-duplicates are skipped, also of the default configuration, which is tried in any case.

    Args:
        config: The config of the search that begins.
        storage: The URL of the search's storage with its password, used for earlier studies in
            the same database; None: the URLs in `study.warm_start` are used unchanged.

    Raises:
        StudyError: A study does not exist, or cannot be read.
        ConfigError: No configuration of a study lies in the space.
    """
    default = default_params(config.train, config.space)
    sources = config.study.warm_start
    return different(
        config.space, default, [tuple(_proposals(config, source, storage)) for source in sources]
    )


def first_rung_of_earlier(config: SearchConfig, storage: str | None = None) -> FirstRung | None:
    """The first rung that the learning curves of the studies in `study.warm_start` suggest.

    Only studies with the same metric, max_epochs and epoch_images count. None: they suggest no
    change of the default first rung, or the search file sets the first rung.

    Raises:
        StudyError: A study does not exist, or cannot be read.
    """
    name, max_epochs = config.scheduler.name, config.train.max_epochs
    own = (max_epochs, config.train.epoch_images, config.study.metric)
    if config.scheduler.min_epochs is not None or name == "none":
        return None
    studies = []
    for source in config.study.warm_start:
        study, earlier = _open(source, storage)
        train = earlier.train
        if (train.max_epochs, train.epoch_images, earlier.study.metric) == own:
            studies.append([trial.curve_to(max_epochs) for trial in study.trials()])
    default = None if name == "freeze_thaw" else DEFAULT_MIN_EPOCHS
    chosen = choose_first_rung(studies, max_epochs, default)
    return chosen and chosen.model_copy(update={"is_of_earlier_studies": True})


def trials_of_earlier(config: SearchConfig, storage: str | None = None) -> list[TrialSummary]:
    """Trials of the studies in `study.warm_start` that have a learning curve and the same metric.

    Their params are moved into this search's space; trials with other choices are left out.

    Raises:
        StudyError: A study does not exist, or cannot be read.
    """
    found = []
    for source in config.study.warm_start:
        study, earlier = _open(source, storage)
        for trial in study.trials() if earlier.study.metric == config.study.metric else ():
            params = _params_here(config, apply_params(earlier.train, trial.params, source))
            curve = {e: v for e, v in trial.curve.items() if e <= config.train.max_epochs}
            if params is not None and curve:
                found.append(replace(trial, params=params, curve=curve))
    return found


def different(
    space: Space, default: Params, rankings: Sequence[Sequence[Params]]
) -> tuple[Params, ...]:
    """The first NUM_PROPOSALS configurations of several rankings, taken from each in turn.

    A configuration is skipped if it is nearly the same as an earlier one or as the default.
    """
    cube, chosen = UnitCube(space), [default]
    for params in itertools.chain.from_iterable(itertools.zip_longest(*rankings)):
        if params is None or len(chosen) > NUM_PROPOSALS:
            continue
        if not any(_are_nearly_the_same(cube, params, other) for other in chosen):
            chosen.append(params)
    return tuple(chosen[1:])


def _are_nearly_the_same(cube: UnitCube, a: Params, b: Params) -> bool:
    gaps = np.abs(cube.encode(a) - cube.encode(b))  # (d,)
    return bool(np.all(np.where(cube.is_categorical, gaps == 0, gaps < MIN_DISTANCE)))


def _proposals(config: SearchConfig, source: str, storage: str | None) -> Iterator[Params]:
    """Yields an earlier study's configurations as params of the space, most promising first."""
    study, earlier = _open(source, storage)
    trials = study.trials()
    by_number = {trial.number: trial for trial in trials}
    num_found = 0
    ranking = predicted_ranking(
        earlier, trials, study.metadata.model_state, study.metadata.first_levels
    )
    for number in ranking:
        train = apply_params(earlier.train, by_number[number].params, source)
        params = _params_here(config, train)
        if params is not None:
            num_found += 1
            yield params
    if not num_found:
        raise ConfigError(
            f"study.warm_start: of the {len(trials)} trials of {source} none has a value and "
            "choices that this space has; leave it out, or add its choices to space"
        )


def _params_here(config: SearchConfig, train: TrainConfig) -> Params | None:
    """An earlier training as params of the space; None: it has a choice that the space lacks."""
    values = {path: value_within(train, path, p) for path, p in config.space.items()}
    return remap(values, config.space, Outside.MOVED)


def _open(source: str, storage: str | None) -> tuple[SearchStudy, SearchConfig]:
    """The study that a run folder or URL#STUDY names, and the config of its search."""
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
