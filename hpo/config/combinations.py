"""All combinations of values that a space has for some of its parameters."""

import itertools
from collections.abc import Iterator, Sequence

from hpo.config.search_space import Params, Space, is_active, sampling_order


def combinations(space: Space, paths: Sequence[str]) -> Iterator[Params]:
    """Yields each combination of the examples of these parameters that `when` allows, once.

    Args:
        space: The searched parameters.
        paths: Parameters; those that the space does not have are passed over.
    """
    searched = [path for path in paths if path in space]
    conditions = {other for path in searched for other in space[path].when}
    order = [path for path, _ in sampling_order(space) if path in {*searched, *conditions}]
    seen = set()
    for values in itertools.product(*(space[path].examples() for path in order)):
        params: Params = {}
        for path, value in zip(order, values, strict=True):
            if is_active(space[path], params):
                params[path] = value
        params = {path: params[path] for path in searched if path in params}
        key = tuple(params.items())
        if key not in seen:
            seen.add(key)
            yield params
