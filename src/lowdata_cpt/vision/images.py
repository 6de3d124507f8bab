"""The one set of image helpers: uint8 pixels to tensors in [0, 1], resizing, normalising, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def to_images(batch: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1] on `device`."""
    return to_float(torch.from_numpy(np.ascontiguousarray(batch)).to(device))


def to_float(batch: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1]."""
    return batch.permute(0, 3, 1, 2).float().div_(255)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize [B, 3, H, W] to [B, 3, size, size]: bilinear, antialiased when shrinking."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract `mean` and divide by `std`, per channel of [B, 3, H, W]."""
    mean_, std_ = (torch.tensor(v, device=images.device, dtype=images.dtype).view(1, -1, 1, 1) for v in (mean, std))
    return (images - mean_) / std_


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of images uint8 [N, H, W, 3], as parts of 255.

    Of a channel that is constant, e.g. an empty one, the deviation is 1: images can be divided by it.

    From histograms, image by image: thousands of images need no more memory than one.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for image in images:
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.where(std == 0, 1.0, std).tolist())
