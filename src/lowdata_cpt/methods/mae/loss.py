"""MAE's loss: normalised pixels of the masked patches.

L = mean over masked patches and pixels of (ŷ - y)², y = (p - mean p) / √(var p + 1e-6) for each patch p.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


def patch_pixels(images: Tensor, patch_size: int) -> Tensor:
    """Cut images [B, 3, S, S] into patches [B, N, 3·p²] in row-major order."""
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def pixel_target(images: Tensor, patch_size: int) -> Tensor:
    """Return each patch normalised by its own mean and unbiased variance: [B, N, 3·p²]."""
    pixels = patch_pixels(images.float(), patch_size)
    variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    return (pixels - mean) / (variance + EPSILON).sqrt()


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens [B, N, D] at index [B, M] -> [B, M, D]."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def pixel_loss(prediction: Tensor, images: Tensor, masked: Tensor, patch_size: int) -> Tensor:
    """Return the mean squared error of prediction [B, N, 3·p²] on the masked patches [B, M] of images [B, 3, S, S]."""
    target = pixel_target(images, patch_size)
    return F.mse_loss(gather_tokens(prediction.float(), masked), gather_tokens(target, masked))
