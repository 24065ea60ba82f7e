"""From an image folder to batches of tensors."""
