"""The search file as typed values: its schema, its loading, the searched space, the objectives."""
