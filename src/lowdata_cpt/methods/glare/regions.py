"""Regions of a view: where the CLS token looks, blocks of patches around it, and their match in another view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.backbones.attention import attention_logits
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.vision.augment import send


@torch.no_grad()
def cls_attention(vit: ViT, tokens: Tensor, rope: Tensor | None) -> Tensor:
    """Return the last block's attention from CLS to the patches [B, H, N]; it sums to one over the patches.

    Models without a class token ask with the mean of the patches' queries.

    Args:
        vit: the backbone.
        tokens: [B, T, D], what enters the last block.
        rope: rotary embedding of `ViT.embed`.
    """
    prefix = vit.num_prefix_tokens
    first, last = (0, 1) if vit.has_cls else (prefix, tokens.shape[1])
    logits = attention_logits(vit, -1, tokens, rope, torch.arange(first, last, device=tokens.device))
    return logits[..., prefix:].float().mean(2).softmax(-1)


@torch.no_grad()
def sample_regions(attention: Tensor, regions: int, top: float, sides: tuple[int, int]) -> Tensor:
    """Draw `regions` connected blocks of patches per image where a random head of the CLS token looks.

    A seed is drawn among the `top` fraction of patches that the head ranks highest (without replacement while they
    last). Height and width are drawn from `sides`; of all blocks of that size that contain the seed, the region is
    the one with the most attention. Random numbers come from torch's global CPU generator.

    Args:
        attention: [B, H, N] over a square grid of N patches.
        regions: R.
        top: fraction of the patches that may be seeds, in (0, 1].
        sides: smallest and largest side in patches; cut to the grid.

    Returns:
        bool [B, R, N], the patches of each region.
    """
    batch, heads, count = attention.shape
    grid, device = int(count**0.5 + 0.5), attention.device
    head = send(torch.randint(heads, (batch,)), device)
    chosen = attention[torch.arange(batch, device=device), head]
    candidates = chosen.topk(max(1, round(top * count)), dim=1).indices
    order = torch.rand(candidates.shape).argsort(1)
    drawn = send(order[:, torch.arange(regions) % candidates.shape[1]], device)
    seed = candidates.gather(1, drawn)
    low, high = (min(side, grid) for side in sides)
    height, width = send(torch.randint(low, high + 1, (2, batch, regions)), device)
    return grow(chosen, seed, height, width, high)


def grow(attention: Tensor, seed: Tensor, height: Tensor, width: Tensor, longest: int) -> Tensor:
    """Return the block of `height` × `width` patches around each seed that holds the most attention.

    Args:
        attention: [B, N].
        seed: [B, R] patch indices.
        height, width: [B, R] sides in patches, at most `longest`.
        longest: largest side, at most the grid's.

    Returns:
        bool [B, R, N].
    """
    batch, count = attention.shape
    grid = int(count**0.5 + 0.5)
    integral = F.pad(attention.double().view(batch, grid, grid).cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
    offset = torch.arange(longest, device=attention.device)
    height, width = height[..., None, None], width[..., None, None]
    top = ((seed // grid)[..., None, None] - offset[:, None]).expand(-1, -1, -1, longest)
    left = ((seed % grid)[..., None, None] - offset).expand(-1, -1, longest, -1)
    inside = (offset[:, None] < height) & (offset < width)
    inside = inside & (top >= 0) & (left >= 0) & (top + height <= grid) & (left + width <= grid)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        index = y.clamp(0, grid) * (grid + 1) + x.clamp(0, grid)
        return integral.gather(1, index.flatten(1)).view(index.shape)

    total = (
        corner(top + height, left + width) - corner(top, left + width) - corner(top + height, left) + corner(top, left)
    )
    best = total.masked_fill(~inside, -1.0).flatten(2).argmax(2, keepdim=True)
    top, left = top.flatten(2).gather(2, best), left.flatten(2).gather(2, best)
    line = torch.arange(grid, device=attention.device)
    rows = (line >= top) & (line < top + height[..., 0])
    columns = (line >= left) & (line < left + width[..., 0])
    return (rows.unsqueeze(3) & columns.unsqueeze(2)).flatten(2)


def region_means(patches: Tensor, regions: Tensor) -> Tensor:
    """Return z, the mean patch token of each region: [B, N, D], bool [B, R, N] -> [B, R, D]."""
    weights = regions.to(patches.dtype)
    return torch.bmm(weights / weights.sum(-1, keepdim=True), patches)


class CrossAttention(nn.Module):
    """CA(z, Z) = softmax((z W_q)(Z W_k)ᵀ · τ)(Z W_v), one head, τ = 1/√D.

    The three matrices start at the identity, so that step 0 already finds the patches most like the region.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        for linear in (self.query, self.key, self.value):
            nn.init.eye_(linear.weight)
        self.temperature = width**-0.5

    def weights(self, z: Tensor, patches: Tensor) -> Tensor:
        """Return how much of each patch [B, N, D] each region [B, R, D] takes: [B, R, N], summing to one."""
        query, key = self.query(z).float(), self.key(patches).float()
        with torch.autocast(query.device.type, enabled=False):  # or the product would be rounded to bfloat16 again
            weights: Tensor = ((query @ key.transpose(1, 2)) * self.temperature).softmax(-1)
        return weights

    def forward(self, z: Tensor, patches: Tensor) -> Tensor:
        """Return the regions' counterparts [B, R, D] among patches [B, N, D]."""
        values: Tensor = self.value(patches)
        return torch.bmm(self.weights(z, patches).to(values.dtype), values)
