"""The view of masked reconstruction, and which of its patches are hidden (MAE; shared with TEC)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.training.learner import Context, Views
from lowdata_cpt.vision import augment
from lowdata_cpt.vision.images import normalise


class Mask(NamedTuple):
    """A random split of N patches: indices of the visible [B, K] and of the masked [B, N - K] ones."""

    visible: Tensor
    masked: Tensor


def random_mask(batch: int, patches: int, ratio: float, generator: torch.Generator | None = None) -> Mask:
    """Draw a mask per image on the CPU, K = int(N · (1 - ratio)) but at least one patch on either side.

    Args:
        batch: B.
        patches: N.
        ratio: masked fraction.
        generator: CPU generator; torch's global one when None.

    Raises:
        UserError: there are fewer than two patches.
    """
    if patches < 2:
        raise UserError(f"masked reconstruction needs at least 2 patches an image, got {patches}; raise image_size")
    kept = min(patches - 1, max(1, int(patches * (1 - ratio))))
    order = torch.rand(batch, patches, generator=generator).argsort(dim=1)
    return Mask(order[:, :kept], order[:, kept:])


def masked_view(
    images: Tensor,
    generator: torch.Generator,
    context: Context,
    *,
    grid: int,
    mask_ratio: float,
    crop_scale: tuple[float, float],
) -> Views:
    """One view: RandomResizedCrop (bicubic) and flip; and the mask's visible and masked patch indices.

    Args:
        images: [B, 3, H, W] in [0, 1].
        generator: CPU generator of all the random numbers.
        context: for size and normalisation.
        grid: patches along a side of the view.
        mask_ratio: fraction of the patches that is hidden.
        crop_scale: area of the crop as a fraction of the image.

    Returns:
        `x` [B, 3, S, S] normalised, `visible` [B, K] and `masked` [B, N - K].
    """
    x = augment.random_resized_crop(images, context.image_size, generator, crop_scale, mode="bicubic")
    mask = random_mask(len(x), grid**2, mask_ratio, generator)
    visible, masked = (augment.send(index, x.device) for index in mask)
    return {"x": normalise(x, context.mean, context.std), "visible": visible, "masked": masked}
