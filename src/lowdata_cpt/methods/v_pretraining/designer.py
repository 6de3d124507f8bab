"""The task designer φ: a tiny U-Net whose soft mask decides which pixels of a global crop stay sharp.

ṽ = μ ⊙ v + (1 − μ) ⊙ Blur(v),  μ = φ(v) ∈ [0, 1]^{H×W};  R(φ) = λ_s (mean μ − keep)² + λ_tv TV(μ).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.vision import augment


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    # Group norm: no running statistics, so the mask of one image never depends on another image or an earlier batch.
    groups = math.gcd(4, outputs)
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.GroupNorm(groups, outputs), nn.GELU()]
    return nn.Sequential(*layers)


class MaskDesigner(nn.Module):
    """U-Net with `depth` resolutions and `channels`, 2·`channels`, … feature maps; any input size."""

    def __init__(self, channels: int, depth: int, keep: float) -> None:
        """Build φ; the last bias starts at logit(`keep`), so that the first masks have about the wanted mean."""
        super().__init__()
        widths = [channels * 2**level for level in range(depth)]
        self.down = nn.ModuleList(_stage(i, o) for i, o in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(_stage(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.out = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.out.bias, math.log(keep / (1 - keep)))  # type: ignore[arg-type]

    def forward(self, views: Tensor) -> Tensor:
        """Return the mask μ [B, 1, H, W] in [0, 1] of normalised views [B, 3, H, W]."""
        x, skips = views, []
        for level, stage in enumerate(self.down):
            # ceil_mode: odd and tiny sizes work, one pixel stays one pixel.
            x = stage(F.avg_pool2d(x, 2, ceil_mode=True) if level else x)
            skips.append(x)
        skips.pop()
        for stage in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = stage(torch.cat([x, skip], dim=1))
        return torch.sigmoid(self.out(x))


@torch.no_grad()
def blur(views: Tensor, sigma: float) -> Tensor:
    """Blur views [B, 3, H, W] with a standard deviation of `sigma` times their shorter side."""
    side = min(views.shape[-2:])
    pixels = sigma * side
    radius = max(1, min(math.ceil(2 * pixels), side - 1))
    return augment.gaussian_blur(views, torch.full((len(views),), pixels, device=views.device), radius)


def blend(mask: Tensor, views: Tensor, blurred: Tensor) -> Tensor:
    """Return ṽ = μ ⊙ v + (1 − μ) ⊙ Blur(v), [B, 3, H, W].

    The views may be normalised: the blur's kernel sums to one, so that both commute.
    """
    return mask * views + (1 - mask) * blurred


def sparsity(mask: Tensor, keep: float) -> Tensor:
    """Return the mean over images of (mean μ − keep)², the part of R weighted by λ_s."""
    return (mask.mean((1, 2, 3)) - keep).square().mean()


def total_variation(mask: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, both directions summed: weighted by λ_tv."""
    vertical = (mask[:, :, 1:] - mask[:, :, :-1]).abs().mean() if mask.shape[2] > 1 else mask.new_zeros(())
    horizontal = (mask[:, :, :, 1:] - mask[:, :, :, :-1]).abs().mean() if mask.shape[3] > 1 else mask.new_zeros(())
    return vertical + horizontal


def random_mask(count: int, size: int, keep: float, cells: int, generator: torch.Generator) -> Tensor:
    """Return binary masks [count, 1, size, size] on the CPU of which the fraction `keep` is one: smooth random blobs.

    A coarse field of `cells`² normal numbers is interpolated and cut at its own quantile, image by image.
    """
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    field = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).flatten(1)
    place = field.argsort(1, descending=True).argsort(1)
    return (place < round(keep * size * size)).float().view(count, 1, size, size)
