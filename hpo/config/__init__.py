"""The search file as typed values: schema, loading, search space and objectives."""
