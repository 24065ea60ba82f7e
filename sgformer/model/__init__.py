"""SG-Former. Importing this package registers the models with timm."""

from sgformer.model.sg_former import SGFormer

__all__ = ["SGFormer"]
