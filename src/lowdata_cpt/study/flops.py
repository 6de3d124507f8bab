"""Floating-point operations of backbones and methods, from names and settings alone (no torch).

Operations are multiply and add, counted twice per multiply-accumulate. Heads, augmentation and optimiser are left
out: for ViTs they are a few per cent.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.base import MethodConfig

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
VIEW_SIZE = 224  # the size that crop sizes are given at


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


def training_flops(method: MethodConfig, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen of one method; a method unknown here counts as one trained pass."""
    return float(_training_flops(method.model_dump(), shape, size, batch))


def _training_flops(settings: dict[str, Any], shape: Geometry, size: int, batch: int) -> Any:
    kind = settings["method"]
    whole = features_flops(shape, size)
    if kind == "diet_cp":
        return whole * (1 + 2 * settings["trained_blocks"] / shape.depth)
    if kind == "glare":  # two views; student through frozen blocks, teacher forward
        return 2 * whole * (FROZEN + 1)
    if kind in ("dino", "v_pretraining"):
        local = features_flops(shape, round(settings["local_crop_size"] * size / VIEW_SIZE))
        plain = 2 * whole * (TRAINED + 1) + settings["local_crops"] * local * TRAINED
        if kind == "dino":
            return plain
        # Every r-th step: first and second derivatives on value_batch images, two passes over feedback images.
        meta = settings["value_batch"] * 2 * plain + settings["feedback_batch"] * whole * FROZEN
        return plain + meta / (settings["every"] * batch)
    if kind in ("tec", "mae"):
        patches = (size / shape.patch) ** 2
        seen = forward_flops(shape, shape.prefix + (1 - settings["mask_ratio"]) * patches)
        wide = {768: 512, 1024: 768}.get(shape.width, shape.width * 2 // 3)
        width = settings["decoder_width"] or wide
        decoder = forward_flops(shape, 1 + patches, settings["decoder_depth"], width) * (2 if kind == "tec" else 1)
        return TRAINED * (seen + decoder) + (whole if kind == "tec" else 0)
    return TRAINED * whole
