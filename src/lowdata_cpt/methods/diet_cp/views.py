"""DIET-CP's one view."""

from __future__ import annotations

import torch
from torch import Tensor

from lowdata_cpt.vision import augment


def one_view(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """RandomResizedCrop, flip, ColorJitter(.4, .4, .4, .2) with p .3, grayscale with p .2: [B, 3, size, size]."""
    x = augment.random_resized_crop(images, size, generator)
    x = augment.color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, p=0.3)
    return augment.random_grayscale(x, generator, p=0.2)
