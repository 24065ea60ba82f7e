"""The trainer and its parts: optimizer, evaluation, checkpoints, diagnosis, devices."""
