"""Data loading: image folder, decoding, cache, augmentation and batches of tensors."""
