"""The surrogate: a Gaussian process over configurations and epochs, fitted to learning curves."""
