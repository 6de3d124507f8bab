"""What an image costs: one forward pass, and backward through the last blocks only."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import Geometry, features_flops
from lowdata_cpt.methods.diet_cp.config import DietCP


def training_flops(config: DietCP, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    return features_flops(shape, size) * (1 + 2 * config.trained_blocks / shape.depth)
