"""SG-Former for image classification: the model, its trainer and its export.

Nothing heavy is imported here; `import sgformer.model` registers the models with timm.
"""

__version__ = "0.1.0"
