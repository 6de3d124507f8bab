"""What an image costs: two global views through student and teacher, local ones through the student."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import TRAINED, Geometry, features_flops
from lowdata_cpt.methods.dino.config import DINO


def training_flops(config: DINO, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    local = features_flops(shape, round(config.local_crop_size * size / 224))
    return 2 * features_flops(shape, size) * (TRAINED + 1) + config.local_crops * local * TRAINED
