"""Images as tensors: batched augmentation and the one set of image helpers."""
