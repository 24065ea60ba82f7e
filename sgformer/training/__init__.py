"""The trainer and what it needs: optimizer, evaluation, checkpoints, devices."""
