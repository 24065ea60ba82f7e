"""Which trial wins: Pareto fronts, finalists, the verdict and its intervals."""
