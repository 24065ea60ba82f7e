"""The Optuna study, the search's only memory: its trials, its metadata, its storage, its lease."""
