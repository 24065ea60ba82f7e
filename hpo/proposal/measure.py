"""Measures an epoch of a search's default configuration on this machine."""

import contextlib

from hpo.config.schema import SearchConfig
from hpo.execution.cluster import resources_at
from hpo.execution.profile import Cost, profiled
from sgformer.data.image_folder import ImageFolder


def measured_default(config: SearchConfig, folder: ImageFolder) -> Cost:
    """What an epoch of the default configuration costs, by a few of its steps.

    Raises:
        InputError: The training cannot be made, or no image can be read.
    """
    alone = config.model_copy(update={"space": {}})
    resources = resources_at(config.resources, None)
    with contextlib.closing(profiled(alone, folder, resources, None)) as costs:
        return next(costs)
