"""The recipe of the pixel-target control and facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.base import Blocks, MethodConfig, Scale, Width
from lowdata_cpt.methods.facts import NORMALISED, Facts, Precondition, SourceBudget
from lowdata_cpt.training.config import Optimiser, Schedule


class MAE(MethodConfig):
    """Masked autoencoding continued from the base's weights (MAE, arXiv 2111.06377).

    lr = 1.5e-4 · batch / 256; the default is that of batch 4096. Warm-up is 40 of 300 epochs.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.mae.learner:MAELearner"
    facts: ClassVar[Facts] = Facts(
        label="MAE (control)",
        color="#9a9a9a",
        marker="X",
        line="--",
        role="control",
        trains="the whole backbone but its position embedding, and a pixel decoder, which is dropped",
        paper="He et al. 2021, arXiv 2111.06377",
        acts=(Precondition("loss", NORMALISED),),
        # 1600 epochs of ImageNet-1k.
        source_budget=SourceBudget(1600 * 1_281_167, 1600 * 1_281_167 / 4096, 2.4e-3),
    )

    method: Literal["mae"] = "mae"
    optimiser: Optimiser = Optimiser(lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule: Schedule = Schedule(unit="step", warmup=40 / 300, final_lr=0.0)
    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="Fraction of the patches hidden from the encoder.")
    decoder_depth: Blocks = 2
    decoder_width: Width | None = Field(default=None, ge=4, description="Null: scaled with the backbone's width.")
    decoder_heads: int | None = Field(default=None, ge=1, le=1024, description="Null: 16, fewer in narrow decoders.")
    crop_scale: Scale = Field(default=(0.2, 1.0), description="Area of the random resized crop.")

    def misfits(self, width: int, depth: int, patches: int) -> Iterator[str]:
        """Yield a view without a patch to hide, and a decoder whose heads do not divide its width."""
        yield from super().misfits(width, depth, patches)
        yield from masking_misfits(self.decoder_width, self.decoder_heads, width, patches)


def masking_misfits(decoder_width: int | None, decoder_heads: int | None, width: int, patches: int) -> Iterator[str]:
    """Yield what of a masked autoencoder's settings a backbone cannot have (see `MethodConfig.misfits`)."""
    if patches < 2:
        yield "mask_ratio hides patches, but a view has one only; expected a larger image_size"
    try:
        decoder_shape(width, decoder_width, decoder_heads)
    except UserError as error:
        yield str(error)


def decoder_shape(width: int, decoder_width: int | None, decoder_heads: int | None) -> tuple[int, int]:
    """Return width and heads of the decoder for a backbone of `width`.

    TEC's code has 512 for ViT-B and 768 for ViT-L, 16 heads; narrower backbones get 2/3 of their width, in steps of
    64, with 32 channels a head.

    Raises:
        UserError: the given width is not divisible by 4 or by the number of heads.
    """
    default = round(width * (2 / 3 if width <= 768 else 3 / 4) / 64) * 64
    chosen = decoder_width or max(64, default)
    heads = decoder_heads or max(1, min(16, chosen // 32))
    if chosen % 4 or chosen % heads:
        raise UserError(f"decoder_width {chosen} must be divisible by 4 and by the {heads} heads of the decoder")
    return chosen, heads
