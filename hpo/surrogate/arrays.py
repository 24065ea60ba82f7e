"""Array types of the surrogate, and the one thread that its linear algebra runs on."""

import functools
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

P = ParamSpec("P")
R = TypeVar("R")
_BLAS: Final = ThreadpoolController().select(user_api="blas")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Wraps a function so that BLAS runs on one thread inside.

    The matrices are small and the trials keep all cores busy: more BLAS threads would only wait
    for each other.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _BLAS.limit(limits=1):
            return function(*args, **kwargs)

    return limited
