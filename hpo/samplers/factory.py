"""Makes Optuna's sampler that `study.sampler` names, for one trial."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Final

import optuna

from hpo.config.schema import StudyConfig
from hpo.config.search_space import Space
from hpo.samplers.curves import CurveSampler
from hpo.samplers.evolution import CmaEs, SteadyNSGAII, SteadyNSGAIII

NUM_STARTUP_TRIALS: Final = 5  # Source: shared measurements, TPE + ASHA with 5 beats 10.


def create_sampler(config: StudyConfig, space: Space, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for one trial, seeded by the search's seed and the trial's number."""
    seed = (config.seed * 1_000_003 + number) % 2**32
    with no_experimental_warnings():
        if config.sampler == "curves":
            return CurveSampler(space, config.seed, seed)
        if config.sampler == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, warn_independent_sampling=False
            )
        if config.sampler == "qmc":
            return _NumberedQMCSampler(config.seed, number, seed)
        if config.sampler == "cmaes":
            return CmaEs(space, seed)
        if config.sampler == "nsga2":
            return SteadyNSGAII(seed)
        if config.sampler == "nsga3":
            return SteadyNSGAIII(seed)
        if config.sampler in {"random", "grid"}:  # Grid gives a grid's params
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP_TRIALS)


@contextlib.contextmanager
def no_experimental_warnings() -> Iterator[None]:
    """Silences Optuna's warnings of experimental classes: users can do nothing about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class _NumberedQMCSampler(optuna.samplers.QMCSampler):
    """Draws the point of a low-discrepancy sequence whose index is the trial's number.

    Optuna's class keeps the next index in the study, which ProxyStudy rebuilds now and then.
    """

    def __init__(self, seed: int, number: int, own_seed: int) -> None:
        outside = optuna.samplers.RandomSampler(seed=own_seed)
        super().__init__(
            seed=seed,
            scramble=True,
            independent_sampler=outside,
            warn_independent_sampling=False,
        )
        self._number = number

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, Any]) -> int:
        return self._number
