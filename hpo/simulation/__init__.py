"""Simulates searches over known learning curves, on a simulated clock."""
