"""Uses trials of other studies: carries trials over, warm-starts, and reads prior trials."""
