"""Everything that runs on Ray: workers, the Ray scheduler, resources, trainings."""
