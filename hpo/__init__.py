"""Hyperparameter search for image classifiers: Ray Tune runs the trials that Optuna samples.

Nothing heavy is imported here.
"""
