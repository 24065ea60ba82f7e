"""Serves optuna-dashboard, guarded, with what this program knows of its studies."""
