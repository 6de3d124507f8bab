"""What an image costs: as plain DINO, and every r-th step a meta step."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import FROZEN, Geometry, features_flops
from lowdata_cpt.methods.dino.cost import training_flops as dino_flops
from lowdata_cpt.methods.v_pretraining.config import VPretraining


def training_flops(config: VPretraining, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    plain = dino_flops(config, shape, size, batch)
    # First and second derivatives on value_batch images, two passes over feedback images.
    meta = config.value_batch * 2 * plain + config.feedback_batch * features_flops(shape, size) * FROZEN
    return plain + meta / (config.every * batch)
