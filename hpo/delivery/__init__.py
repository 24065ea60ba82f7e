"""Retrains and exports the winner and the Pareto front, and runs exported models."""
