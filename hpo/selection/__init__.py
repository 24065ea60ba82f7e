"""Chooses the winning trial: Pareto fronts, finalists, the verdict and its intervals."""
