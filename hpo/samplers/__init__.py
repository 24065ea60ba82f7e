"""Where the params of a new trial come from: Optuna's samplers and our own."""
