"""Floating-point operations of a ViT, from its name alone (no torch).

Operations are multiply and add, counted twice per multiply-accumulate. Heads, augmentation and optimiser are left
out: for ViTs they are a few per cent.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lowdata_cpt.core.errors import UserError

WIDTH_DEPTH = {
    "tiny": (192, 12),
    "small": (384, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "huge": (1280, 32),
    "giant": (1536, 40),
}
TRAINED = 3.0  # forward, backward to the activations, backward to the weights
FROZEN = 2.0  # forward and backward to the activations: gradients pass through, weights take none


class Geometry(NamedTuple):
    """Shape of a ViT: token width, blocks, patch side in pixels, tokens that are no patches."""

    width: int
    depth: int
    patch: int
    prefix: int


def geometry(model: str) -> Geometry:
    """Read a ViT's shape from its timm name.

    Raises:
        UserError: the name does not say it.
    """
    size = re.search(r"_(tiny|small|base|large|huge|giant)_", model)
    patch = re.search(r"patch(\d+)", model)
    if not size or not patch:
        raise UserError(f"backbone model {model!r}: expected a timm ViT name with its size and patch, to forecast it")
    registers = 4 if "reg4" in model or "dinov3" in model else 0
    return Geometry(*WIDTH_DEPTH[size[1]], int(patch[1]), 1 + registers)


def parameters(shape: Geometry) -> float:
    """Return the number of parameters, position embedding left out."""
    return shape.depth * (12 * shape.width**2 + 13 * shape.width) + 3 * shape.patch**2 * shape.width


def forward_flops(shape: Geometry, tokens: float, depth: float | None = None, width: int | None = None) -> float:
    """Return operations of a forward pass of `depth` blocks over `tokens` tokens."""
    d = width or shape.width
    return (shape.depth if depth is None else depth) * (24.0 * tokens * d**2 + 4.0 * tokens**2 * d)


def features_flops(shape: Geometry, size: int) -> float:
    """Return operations of one image's forward pass."""
    return forward_flops(shape, shape.prefix + (size / shape.patch) ** 2)
