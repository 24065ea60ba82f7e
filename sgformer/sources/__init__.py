"""Where images come from: class folders, tar shards, manifests and parquet files."""
