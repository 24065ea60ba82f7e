"""Runs trials and trainings on Ray: cluster resources, workers, the Ray scheduler, trainings."""
