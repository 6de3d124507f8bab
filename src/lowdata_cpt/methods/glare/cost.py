"""What an image costs: two views; the base encoder through frozen blocks, the momentum encoder forward."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import FROZEN, Geometry, features_flops
from lowdata_cpt.methods.glare.config import GLARE


def training_flops(config: GLARE, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    return 2 * features_flops(shape, size) * (FROZEN + 1)
