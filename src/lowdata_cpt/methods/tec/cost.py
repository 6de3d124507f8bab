"""What an image costs: the frozen base on the whole image; the student as in MAE, with a decoder of two branches."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import Geometry, features_flops
from lowdata_cpt.methods.mae.cost import masked_flops
from lowdata_cpt.methods.tec.config import TEC


def training_flops(config: TEC, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    student = masked_flops(shape, size, config.mask_ratio, config.decoder_depth, config.decoder_width, branches=2)
    return student + features_flops(shape, size)
