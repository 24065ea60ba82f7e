"""The way from an image folder to batches of tensors."""
