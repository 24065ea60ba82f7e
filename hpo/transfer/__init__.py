"""What other studies teach a search: trials carried over, warm starts, prior trials."""
