"""Learning curves that are assumed before a search has any: of earlier studies, or power laws."""

from collections.abc import Callable
from typing import Final

import numpy as np

from hpo.config.schema import SearchConfig
from hpo.config.search_space import Params, params_key
from hpo.simulation.study_curves import StudyCurves
from hpo.transfer.warm_start import trials_of_earlier

SEED: Final = 0
# 1 - top-1 of a training after its first epoch, and the lowest that it approaches.
FIRST_ERROR: Final = (0.6, 0.95)
LAST_ERROR: Final = (0.05, 0.5)
EXPONENT: Final = (0.3, 1.5)
NOISE: Final = 0.005  # standard deviation of an epoch's error
LOSS_OF_AN_ERROR: Final = 3.0  # nats of val_loss where top-1 is 0

ValuesOf = Callable[[Params], list[float]]  # the metric after each of max_epochs epochs


def prior_curves(config: SearchConfig, storage: str | None = None) -> tuple[ValuesOf, str]:
    """Returns the assumed metric of each epoch for params, and says in words what is assumed.

    Raises:
        StudyError: A study of `study.warm_start` does not exist, or cannot be read.
    """
    earlier = trials_of_earlier(config, storage)
    if not any(np.isfinite(v) for trial in earlier for v in trial.curve.values()):
        return _power_laws(config), "curves are power laws drawn at random, the same each time"
    curves = StudyCurves(config, (), earlier)
    text = (
        f"curves are predicted from the {len(earlier)} of study.warm_start that lie in the space"
    )
    return lambda params: list(curves(params).values), text


def _power_laws(config: SearchConfig) -> ValuesOf:
    epochs = np.arange(1, config.train.max_epochs + 1)
    is_loss = not config.study.objective.maximises

    def values_of(params: Params) -> list[float]:
        random = _generator(params, config)
        first, last, exponent = (
            random.uniform(*limits) for limits in (FIRST_ERROR, LAST_ERROR, EXPONENT)
        )
        errors = last + (first - last) * epochs**-exponent + random.normal(0, NOISE, len(epochs))
        values: list[float] = (errors * LOSS_OF_AN_ERROR if is_loss else 1 - errors).tolist()
        return values

    return values_of


def _generator(params: Params, config: SearchConfig) -> np.random.Generator:
    """A generator whose numbers depend on the params alone."""
    key = repr(params_key(params, config.space)).encode()
    return np.random.default_rng([SEED, *key])
