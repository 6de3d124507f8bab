"""GLARE's two views: DINO's crops, some patches blurred, and the same place found in the other crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lowdata_cpt.methods.dino.views import multi_crop
from lowdata_cpt.methods.glare.config import GLARE
from lowdata_cpt.training.learner import Context, Views
from lowdata_cpt.vision.augment import send
from lowdata_cpt.vision.images import normalise


def two_views(images: Tensor, generator: torch.Generator, context: Context, config: GLARE, grid: int) -> Views:
    """Two views with DINO's augmentation, and where they lie in the image; `grid` patches along a side.

    Returns:
        `clean` [2, B, 3, S, S]; where the local term is on also `blurred` (the same views with some patches blurred),
        `chosen` bool [2, B, N] (which ones) and `match` [2, B, N] (see `match_patches`), both on the CPU.
    """
    crops = multi_crop(images, generator, context.image_size, global_scale=config.global_scale)
    pixels = torch.stack(crops.globals)
    views = {"clean": normalise(pixels.flatten(0, 1), context.mean, context.std).view_as(pixels)}
    if "local" in config.weights:
        chosen = draw_patches((2, len(images)), grid**2, config.blur_fraction, generator)
        blurred = blur_patches(pixels.flatten(0, 1), send(chosen.flatten(0, 1), images.device), config.blur_kernel)
        views["blurred"] = normalise(blurred, context.mean, context.std).view_as(pixels)
        views["chosen"] = chosen
        views["match"] = match_patches(crops.boxes, crops.flips, grid)
    return views


def draw_patches(shape: tuple[int, ...], count: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Draw round(fraction · count) of `count` patches, at least one: bool [*shape, count] on the CPU."""
    chosen = max(1, round(fraction * count))
    order = torch.rand(*shape, count, generator=generator).argsort(-1)
    return order < chosen


def blur_patches(images: Tensor, chosen: Tensor, kernel: int = 5) -> Tensor:
    """Replace the chosen patches of images [B, 3, S, S] by their kernel × kernel mean; the others stay bit-equal.

    Args:
        images: views in [0, 1].
        chosen: bool [B, N], row-major patches of a square grid.
        kernel: odd side of the averaging window in pixels; it sees beyond the patch, not beyond the view.
    """
    grid = int(chosen.shape[1] ** 0.5 + 0.5)
    blurred = F.avg_pool2d(images, kernel, stride=1, padding=kernel // 2, count_include_pad=False)
    patch = images.shape[-1] // grid
    mask = chosen.view(-1, 1, grid, grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return torch.where(mask, blurred, images)


def match_patches(boxes: Tensor, flips: Tensor, grid: int) -> Tensor:
    """Track each patch of each of two views back to the image, and find the patch of the other view at that place.

    Args:
        boxes: [2, B, 4] top, left, height, width of the two crops in pixels of the image.
        flips: bool [2, B], whether the crop was mirrored left to right.
        grid: patches along a side.

    Returns:
        int64 [2, B, N]: index of the other view's patch that contains the centre of this one, or −1 where the
        centre lies outside the other crop.
    """
    top, left, height, width = (side.unsqueeze(-1).double() for side in boxes.unbind(-1))
    mirrored = flips.unsqueeze(-1)
    index = torch.arange(grid * grid, device=boxes.device)
    v = (index // grid + 0.5) / grid
    u = (index % grid + 0.5) / grid
    y = top + v * height
    x = left + torch.where(mirrored, 1 - u, u) * width
    other_v = (y - top.flip(0)) / height.flip(0)
    other_u = (x - left.flip(0)) / width.flip(0)
    inside = (other_v >= 0) & (other_v < 1) & (other_u >= 0) & (other_u < 1)
    other_u = torch.where(mirrored.flip(0), 1 - other_u, other_u)
    row, column = ((part * grid).floor().long().clamp(0, grid - 1) for part in (other_v, other_u))
    return torch.where(inside, row * grid + column, -1)
