"""The trainer and its parts: epochs, evaluation, checkpoints, diagnosis, devices."""
