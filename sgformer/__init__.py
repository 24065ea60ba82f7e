"""SG-Former for image classification: the model, its data, its training and its export.

This package imports nothing heavy. `import sgformer.model` registers the models with timm.
"""

__version__ = "0.1.0"
