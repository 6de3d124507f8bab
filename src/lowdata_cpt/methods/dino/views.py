"""DINO's multi-crop views (arXiv 2104.14294; shared with GLARE and V-pretraining)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowdata_cpt.vision import augment


def local_crop_size(image_size: int, patch_size: int, reference: int = 96) -> int:
    """Return DINO's local crop side, `reference` px at 224, scaled with the image and rounded to whole patches."""
    return max(1, round(reference * image_size / 224 / patch_size)) * patch_size


class Crops(NamedTuple):
    """Views of a batch and where they come from; images are in [0, 1], not yet normalised.

    Attributes:
        globals: two tensors [B, 3, S, S].
        locals: `n_local` tensors [B, 3, s, s].
        boxes: [2 + n_local, B, 4] top, left, height, width of each view in pixels of the given images.
        flips: bool [2 + n_local, B], whether a view is mirrored left to right after cropping.
    """

    globals: list[Tensor]
    locals: list[Tensor]
    boxes: Tensor
    flips: Tensor


def dino_colours(x: Tensor, generator: torch.Generator, blur: float, solarize: float) -> Tensor:
    """Jitter (.4, .4, .2, .1) with p .8, grayscale .2, blur and solarize with the given probabilities."""
    x = augment.color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
    x = augment.random_grayscale(x, generator, p=0.2)
    if blur > 0:
        x = augment.random_blur(x, generator, p=blur)
    return augment.random_solarize(x, generator, p=solarize) if solarize > 0 else x


def multi_crop(
    images: Tensor,
    generator: torch.Generator,
    image_size: int,
    local_size: int = 0,
    n_local: int = 0,
    *,
    global_scale: tuple[float, float] = (0.25, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.25),
) -> Crops:
    """Cut two global and `n_local` local views with DINO's augmentation (blur 1, .1, .5; solarize 0, .2, 0).

    Args:
        images: [B, 3, H, W] in [0, 1].
        generator: CPU generator of all the random numbers.
        image_size: S, side of the global views in pixels.
        local_size: side of the local views, a multiple of the patch size (see `local_crop_size`).
        n_local: number of local views.
        global_scale, local_scale: area of a crop as a fraction of the image.
    """
    views, boxes, flips = [], [], []
    for i in range(2 + n_local):
        size, scale = (image_size, global_scale) if i < 2 else (local_size, local_scale)
        boxes.append(augment.random_boxes(len(images), images.shape[-2], images.shape[-1], generator, scale))
        flips.append(augment.random_flips(len(images), generator))
        view = augment.crop_resize(images, boxes[-1], size, flips[-1], mode="bicubic")
        blur, solarize = ((1.0, 0.0), (0.1, 0.2), (0.5, 0.0))[min(i, 2)]
        views.append(dino_colours(view, generator, blur, solarize))
    return Crops(views[:2], views[2:], torch.stack(boxes), torch.stack(flips))
