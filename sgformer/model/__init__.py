"""SG-Former. Importing this package registers its sizes with timm."""

import sgformer.model.sizes  # noqa: F401  registers them
from sgformer.model.sg_former import SGFormer

__all__ = ["SGFormer"]
