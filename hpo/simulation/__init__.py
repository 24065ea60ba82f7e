"""Searches over curves that are known beforehand, on a simulated clock."""
