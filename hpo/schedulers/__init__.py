"""Which trials stop, pause or go on: ASHA, Hyperband, the median rule, freeze-thaw."""
