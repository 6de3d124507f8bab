"""What an image costs: the encoder on the visible patches, the decoder on all places."""

from __future__ import annotations

from lowdata_cpt.backbones.flops import TRAINED, Geometry, forward_flops
from lowdata_cpt.methods.mae.config import MAE, decoder_shape


def training_flops(config: MAE, shape: Geometry, size: int, batch: int) -> float:
    """Return operations per image seen at `size` px in batches of `batch`."""
    return masked_flops(shape, size, config.mask_ratio, config.decoder_depth, config.decoder_width)


def masked_flops(
    shape: Geometry, size: int, mask_ratio: float, decoder_depth: int, decoder_width: int | None, branches: int = 1
) -> float:
    """Return operations of a trained encoder on the visible patches, and of a decoder once for each branch."""
    patches = (size / shape.patch) ** 2
    encoder = forward_flops(shape, shape.prefix + (1 - mask_ratio) * patches)
    width, _ = decoder_shape(shape.width, decoder_width, None)
    return TRAINED * (encoder + branches * forward_flops(shape, 1 + patches, decoder_depth, width))
